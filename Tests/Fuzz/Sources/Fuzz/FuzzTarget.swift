// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What is fuzzed, each with inputs of its own.
enum FuzzTarget: String, CaseIterable {
    /// A header with its extensions.
    case header
    /// A byte that chooses a geometry, then an L2 table.
    case l2
    /// A snapshot table.
    case snapshots
    /// A byte that chooses a geometry, then a bitmap directory.
    case bitmaps
    /// A byte that chooses the compression, then a compressed cluster.
    case codec
    /// A whole file, to be opened, listed, read and inspected.
    case image
    /// The same, on a golden image with changes that the input chooses.
    case patched
    /// Operations that write, on a golden image with changes that the input chooses.
    case verbs
    /// Guest writes, resizes and differences, on the same.
    case guest
    /// A repair of the same.
    case repair

    func run(_ input: [UInt8]) {
        switch self {
        case .header: fuzzHeader(input)
        case .l2: fuzzL2Table(input)
        case .snapshots: fuzzSnapshotTable(input)
        case .bitmaps: fuzzBitmapDirectory(input)
        case .codec: fuzzCodec(input)
        case .image: fuzzImage(input)
        case .patched: if let patched = PatchedImage(input) { fuzzImage(patched.bytes) }
        case .verbs: if let patched = PatchedImage(input) { fuzzVerbs(patched) }
        case .guest: if let patched = PatchedImage(input) { fuzzGuestWrites(patched) }
        case .repair: if let patched = PatchedImage(input) { fuzzRepair(patched) }
        }
    }
}
