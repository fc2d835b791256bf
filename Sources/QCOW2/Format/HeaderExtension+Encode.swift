// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension HeaderExtension {
    /// Adds a record, filled up to a multiple of 8 bytes.
    static func encode(_ kind: Kind, _ data: [UInt8], to bytes: inout [UInt8]) {
        var header = [UInt8](repeating: 0, count: Layout.byteCount)
        var span = header.mutableSpan
        Layout.type.store(kind.rawValue, in: &span)
        Layout.length.store(UInt32(truncatingIfNeeded: data.count), in: &span)
        bytes += header
        bytes += data
        bytes.append(contentsOf: repeatElement(0, count: -data.count & 7))
    }
}

/// The feature name table that new images carry.
///
/// Section "1.5 Feature name table": it lets a program that doesn't know a feature name it all the same.
enum FeatureNames {
    private static let entryByteCount = 48
    /// Kind of feature bits (0 incompatible, 1 compatible, 2 autoclear), number of the bit, name.
    private static let names: [(kind: UInt8, bit: UInt8, name: String)] = [
        (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"),
        (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ]

    /// The table's bytes.
    static var encoded: [UInt8] {
        var bytes: [UInt8] = []
        for (kind, bit, name) in names {
            let start = bytes.count
            bytes += [kind, bit]
            bytes += Array(name.utf8)
            bytes.append(contentsOf: repeatElement(0, count: start + entryByteCount - bytes.count))
        }
        return bytes
    }
}
