// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Stretches of the file that L1 tables take, each with the number of tables that it is part of.
///
/// L1 tables may overlap or be one and the same. Reading each stretch once, with a weight, keeps the work in proportion
/// to the file, however many snapshots claim to use it.
struct L1Segments: Sendable {
    private(set) var segments: [Segment] = []

    struct Segment: Sendable {
        let offset: HostOffset
        let entryCount: Int
        /// Whether the active L1 table covers it.
        let isActive: Bool
        /// How many snapshots' L1 tables cover it.
        let snapshotWeight: UInt32
        /// A table that covers it, for messages.
        let tree: CheckSubject.Tree

        /// The index of the segment's first entry in ``tree``.
        var firstIndex: Int { Int(offset.rawValue - tree.offset.rawValue) / L1Entry.byteCount }
    }

    init(_ trees: [CheckSubject.Tree]) {
        var borders: [(offset: UInt64, tree: Int, isStart: Bool)] = []
        for (index, tree) in trees.enumerated() where tree.entryCount > 0 {
            borders.append((tree.offset.rawValue, index, true))
            borders.append((tree.end, index, false))
        }
        borders.sort { $0.offset < $1.offset }
        var isActive = false
        var snapshotWeight: UInt32 = 0
        // The tree among those that have started that reaches furthest: it covers every segment that any tree does.
        var owner: Int?
        for (index, border) in borders.enumerated() {
            let change: UInt32 = border.isStart ? 1 : .max
            if border.tree == 0 { isActive = border.isStart } else { snapshotWeight &+= change }
            if border.isStart, trees[border.tree].end > owner.map({ trees[$0].end }) ?? 0 { owner = border.tree }
            guard index + 1 < borders.count, borders[index + 1].offset > border.offset else { continue }
            guard isActive || snapshotWeight > 0, let owner else { continue }
            segments.append(
                Segment(
                    offset: HostOffset(border.offset),
                    entryCount: Int(borders[index + 1].offset - border.offset) / L1Entry.byteCount,
                    isActive: isActive, snapshotWeight: snapshotWeight, tree: trees[owner]))
        }
    }

    /// The most entries of one read: 1 MiB.
    private static let pieceCount = 1 << 17

    /// Calls `body` with every entry that isn't zero, and its index in the segment.
    func forEachEntry<S: Storage & ~Copyable>(
        reading storage: borrowing S,
        _ body: (_ segment: Int, _ index: Int, _ entry: L1Entry) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        for (number, segment) in segments.enumerated() {
            var first = 0
            while first < segment.entryCount {
                let count = min(Self.pieceCount, segment.entryCount - first)
                let bytes = try storage.readBytes(
                    count * L1Entry.byteCount,
                    at: segment.offset.saturating(adding: UInt64(first * L1Entry.byteCount)))
                for index in 0..<count {
                    let entry = L1Entry(rawValue: bytes.span.loadBigEndian(at: index * L1Entry.byteCount))
                    if entry.rawValue != 0 { try body(number, first + index, entry) }
                }
                first += count
            }
        }
    }
}
