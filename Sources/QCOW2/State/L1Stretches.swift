// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An L1 table, or a part of one, and what each of its entries counts for.
struct L1Part: Sendable {
    let offset: HostOffset
    let entryCount: Int
    /// The index in its table of the part's first entry.
    var firstIndex = 0
    /// References that an entry is in the new state.
    var newWeight: UInt32 = 0
    /// Whether the active tree of the new state has the entries.
    var isActive = false
    /// The tree that the part belongs to, by its number in the file as it is.
    let tree: Int

    var end: UInt64 { offset.rawValue + UInt64(entryCount * L1Entry.byteCount) }
}

/// Stretches of the file that L1 tables take, each with the number of tables that it is part of.
///
/// In a sound image every table has a stretch of its own. In a damaged one tables may overlap, or be one and the same.
/// Reading each stretch once, with a weight, keeps the work in proportion to the file, however many snapshots claim to
/// use it.
struct L1Stretches: Sendable {
    private(set) var stretches: [Stretch] = []
    private let parts: [L1Part]

    struct Stretch: Sendable {
        let offset: HostOffset
        let entryCount: Int
        /// How many tables cover it, in the file as it is.
        let oldWeight: UInt32
        /// References that an entry is in the new state, in all trees together.
        let newWeight: UInt32
        /// Whether the active tree of the new state covers it.
        let isActive: Bool
        /// The index in its table of the stretch's first entry, for one of the tables.
        let firstIndex: Int
        /// The tree of that table.
        let tree: Int

        /// Who reaches what the stretch points to.
        var owner: TreeOwner { oldWeight == 1 ? TreeOwner(tree: tree) : .several }
    }

    init(_ parts: [L1Part]) {
        self.parts = parts
        var borders: [(offset: UInt64, part: Int, isStart: Bool)] = []
        for (index, part) in parts.enumerated() where part.entryCount > 0 {
            borders.append((part.offset.rawValue, index, true))
            borders.append((part.end, index, false))
        }
        borders.sort { $0.offset < $1.offset }
        var (oldWeight, newWeight, activeCount): (UInt32, UInt32, UInt32) = (0, 0, 0)
        // The part among those that have started that reaches furthest: it covers every stretch that any part does.
        var widest: Int?
        for (index, border) in borders.enumerated() {
            let part = parts[border.part]
            if border.isStart {
                oldWeight &+= 1
                newWeight &+= part.newWeight
                activeCount &+= part.isActive ? 1 : 0
                if part.end > widest.map({ parts[$0].end }) ?? 0 { widest = border.part }
            } else {
                oldWeight &-= 1
                newWeight &-= part.newWeight
                activeCount &-= part.isActive ? 1 : 0
            }
            guard oldWeight > 0, let widest, index + 1 < borders.count, borders[index + 1].offset > border.offset else {
                continue
            }
            let distance = Int(border.offset - parts[widest].offset.rawValue) / L1Entry.byteCount
            stretches.append(
                Stretch(
                    offset: HostOffset(border.offset),
                    entryCount: Int(borders[index + 1].offset - border.offset) / L1Entry.byteCount,
                    oldWeight: oldWeight, newWeight: newWeight, isActive: activeCount > 0,
                    firstIndex: parts[widest].firstIndex + distance, tree: parts[widest].tree))
        }
    }

    /// The most bytes of one read.
    private static let pieceByteCount: UInt64 = 1 << 20

    /// Calls `body` with every entry that isn't zero, and its index in the stretch.
    ///
    /// Holes of the file aren't read: costs O(bytes of the tables that the file system has given to the file).
    func forEachEntry<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter,
        _ body: (_ stretch: Int, _ index: Int, _ entry: L1Entry) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var buffer: [UInt8] = []
        for (number, stretch) in stretches.enumerated() {
            if number % 256 == 0 { try work.checkForWish() }
            let start = stretch.offset.rawValue
            let end = start + UInt64(stretch.entryCount * L1Entry.byteCount)
            var position = start
            while position < end {
                var stop = end
                // A small table costs less to read than to ask about.
                if end - position > 1 << 16 {
                    guard let data = try storage.dataRange(in: position..<end) else { break }
                    position = max(position, data.lowerBound - data.lowerBound % UInt64(L1Entry.byteCount))
                    stop = min(end, (data.upperBound + 7) / 8 * 8, position + Self.pieceByteCount)
                    try work.checkForWish()
                }
                let byteCount = Int(stop - position)
                if buffer.count < byteCount { buffer = [UInt8](repeating: 0, count: byteCount) }
                let offset = HostOffset(position)
                try buffer.withMutableSpan(of: 0..<byteCount) { (bytes) throws(QCOW2Error) in
                    try storage.read(into: &bytes, at: offset)
                }
                let first = Int(position - start) / L1Entry.byteCount
                for index in 0..<(byteCount / L1Entry.byteCount) {
                    let entry = L1Entry(rawValue: buffer.span.loadBigEndian(at: index &* L1Entry.byteCount))
                    if entry.rawValue != 0 { try body(number, first + index, entry) }
                }
                position = stop
            }
        }
    }
}
