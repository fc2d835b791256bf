// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One entry of the refcount table, exactly as it is on disk.
///
/// Section "3.1 Structure".
///
/// There is no copied flag here: bit 63 is part of the offset.
struct RefcountTableEntry: RawRepresentable, Hashable, Sendable {
    static let byteCount = 8

    var rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    init(block: HostOffset?) { rawValue = block?.rawValue ?? 0 }

    /// The refcount block; `nil` when all of its refcounts are zero.
    var block: HostOffset? {
        let offset = rawValue & ~Self.reserved
        return offset == 0 ? nil : HostOffset(offset)
    }

    var hasReservedBits: Bool { rawValue & Self.reserved != 0 }

    private static let reserved: UInt64 = 0x1FF  // bits 0 to 8
}
