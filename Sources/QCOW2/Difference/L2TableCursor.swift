// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads the L2 tables of one tree in the order of the disk, those that are neighbours in the file at once.
struct L2TableCursor {
    /// The most bytes of one read, unless a table is larger.
    private static let batchByteCount = 1 << 19

    private let geometry: ImageGeometry
    /// A part of the L1 table, and the index of its first entry.
    private let entries: [L1Entry]
    private let firstIndex: Int
    private var buffer: [UInt8] = []
    /// The L1 entries whose tables are in the buffer.
    private var buffered = 0..<0

    init(_ entries: [L1Entry], from firstIndex: Int, in geometry: ImageGeometry) {
        self.entries = entries
        self.firstIndex = firstIndex
        self.geometry = geometry
    }

    /// Where the table below an L1 entry is; `nil` when nothing is allocated there, or the entry isn't in the part.
    func offset(at index: Int) -> HostOffset? {
        let position = index - firstIndex
        return entries.indices.contains(position) ? entries[position].l2Table : nil
    }

    /// The table below an L1 entry; zeros where nothing is allocated.
    ///
    /// - Parameters:
    ///   - index: Which entry.
    ///   - table: Gets the table.
    ///   - storage: The file.
    ///   - isWanted: Whether the table below a later entry will be asked for.
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    mutating func load<S: Storage & ~Copyable>(
        _ index: Int, into table: inout L2TableDifference.Table, from storage: borrowing S,
        where isWanted: (_ index: Int) -> Bool
    ) throws(QCOW2Error) {
        let byteCount = geometry.clusterByteCount
        if table.bytes.isEmpty { table.bytes = [UInt8](repeating: 0, count: byteCount) }
        guard let offset = offset(at: index) else {
            for position in 0..<byteCount { table.bytes[position] = 0 }
            return
        }
        table.offset = offset
        if !buffered.contains(index) { try fill(from: index, at: offset, from: storage, where: isWanted) }
        let start = (index - buffered.lowerBound) * byteCount
        table.bytes.replaceSubrange(0..<byteCount, with: buffer[start..<(start + byteCount)])
    }

    private mutating func fill<S: Storage & ~Copyable>(
        from index: Int, at offset: HostOffset, from storage: borrowing S, where isWanted: (_ index: Int) -> Bool
    ) throws(QCOW2Error) {
        let most = max(1, Self.batchByteCount >> geometry.clusterBits)
        if buffer.isEmpty { buffer = [UInt8](repeating: 0, count: most << geometry.clusterBits) }
        var end = index + 1
        while end - index < most, isWanted(end), let next = self.offset(at: end),
            next.rawValue == offset.rawValue + UInt64(end - index) << UInt64(geometry.clusterBits)
        { end += 1 }
        try buffer.withMutableSpan(of: 0..<((end - index) << geometry.clusterBits)) { (bytes) throws(QCOW2Error) in
            try storage.read(into: &bytes, at: offset)
        }
        buffered = index..<end
    }
}
