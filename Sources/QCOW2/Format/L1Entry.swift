// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One entry of an L1 table, exactly as it is on disk.
///
/// Section "2.2 L1 entry".
struct L1Entry: RawRepresentable, Hashable, Sendable {
    static let byteCount = 8
    static let unallocated = L1Entry(rawValue: 0)

    var rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    init(l2Table: HostOffset, isCopied: Bool) {
        rawValue = l2Table.rawValue & Bits.hostOffset | (isCopied ? Bits.copied : 0)
    }

    /// The same entry for an L2 table that moved or got another refcount; whatever else is set stays.
    func with(l2Table: HostOffset, isCopied: Bool) -> L1Entry {
        L1Entry(rawValue: rawValue & Bits.reserved | L1Entry(l2Table: l2Table, isCopied: isCopied).rawValue)
    }

    /// The L2 table; `nil` when everything below the entry is unallocated.
    var l2Table: HostOffset? {
        let offset = rawValue & Bits.hostOffset
        return offset == 0 ? nil : HostOffset(offset)
    }

    /// Whether the L2 table's refcount is exactly one, so that it may be written in place.
    ///
    /// Meaningless in snapshots.
    var isCopied: Bool { rawValue & Bits.copied != 0 }

    var hasReservedBits: Bool { rawValue & Bits.reserved != 0 }

    private enum Bits {
        static let hostOffset: UInt64 = 0x00FF_FFFF_FFFF_FE00  // bits 9 to 55
        static let reserved: UInt64 = 0x7F00_0000_0000_01FF  // bits 0 to 8 and 56 to 62
        static let copied: UInt64 = 1 << 63
    }
}

extension L1Entry {
    /// Decodes a whole table.
    static func decodeTable(_ bytes: Span<UInt8>) -> [L1Entry] {
        var entries: [L1Entry] = []
        entries.reserveCapacity(bytes.count / byteCount)
        for index in 0..<(bytes.count / byteCount) {
            entries.append(L1Entry(rawValue: bytes.loadBigEndian(at: index * byteCount)))
        }
        return entries
    }

    /// Encodes a whole table.
    static func encodeTable(_ entries: [L1Entry]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: entries.count * byteCount)
        var span = bytes.mutableSpan
        for index in entries.indices { span.storeBigEndian(entries[index].rawValue, at: index * byteCount) }
        return bytes
    }
}
