// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An L2 table, and how many L1 entries point to it.
struct L2Table: Sendable {
    let offset: HostOffset
    /// L1 entries that point to it, in all trees of the file as it is; stays at the largest number.
    var oldWeight: UInt32 = 0
    /// L1 entries that will.
    var newWeight: UInt32 = 0
    /// Whether the active tree of the new state reaches it.
    var isActive = false
}

/// Every distinct L2 table of all trees, in the order of the file.
///
/// Section "3.3 The multiplicity rule".
///
/// Each has a weight, the number of L1 entries that point to it; so a table is read once, whatever the number of trees
/// it is part of. What else is known about a table is kept by those who found it out, in columns beside this one.
struct L2Tables: Sendable {
    private var tables: [L2Table] = []

    /// No tables.
    init() {}

    /// Collects the tables that L1 entries point to.
    ///
    /// Reads the L1 tables twice. Costs O(n log n) for n L1 entries at the worst, and nearly always no search, because
    /// L1 tables mostly follow the file's order.
    ///
    /// - Parameters:
    ///   - stretches: The L1 tables.
    ///   - storage: The file.
    ///   - work: Asked between pieces whether to go on.
    ///   - table: The table that an entry points to, if it can be followed.
    ///   - note: Called once with every entry that isn't zero: the stretch, the index in it, and the table's index.
    /// - Throws: What `note` throws, ``QCOW2Error/Code/cancelled``, or ``QCOW2Error/Code/inputOutput``.
    init<S: Storage & ~Copyable>(
        _ stretches: L1Stretches, reading storage: borrowing S, _ work: inout WorkMeter,
        table: (_ entry: L1Entry) -> HostOffset?,
        note: (_ stretch: Int, _ index: Int, _ entry: L1Entry, _ table: Int?) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var pending: [HostOffset] = []
        var found: [L2Table] = []
        try stretches.forEachEntry(reading: storage, &work) { (_, _, entry) throws(QCOW2Error) in
            guard let offset = table(entry), pending.last != offset else { return }
            pending.append(offset)
            // Ever larger batches, so that all the sorting together takes as long as the last one.
            if pending.count >= max(1 << 16, found.count) { Self.merge(&pending, into: &found) }
        }
        Self.merge(&pending, into: &found)
        assert(found.map(\.offset.rawValue).isAscending)
        tables = found
        var hint = 0
        try stretches.forEachEntry(reading: storage, &work) { (number, index, entry) throws(QCOW2Error) in
            var position: Int?
            if let offset = table(entry) {
                let stretch = stretches.stretches[number]
                position = self.index(of: offset, near: hint)
                if let position {
                    hint = position + 1
                    self.tables[position].add(stretch)
                }
            }
            try note(number, index, entry, position)
        }
        assert(tables.allSatisfy { $0.oldWeight > 0 })
    }

    /// Puts offsets in their place among the tables, unless they are there already.
    private static func merge(_ pending: inout [HostOffset], into tables: inout [L2Table]) {
        guard !pending.isEmpty else { return }
        pending.sort()
        var distinct = 0
        for index in pending.indices where index == 0 || pending[index] != pending[index - 1] {
            pending[distinct] = pending[index]
            distinct += 1
        }
        if tables.last.map({ $0.offset < pending[0] }) ?? true {
            tables.append(contentsOf: pending[..<distinct].map { L2Table(offset: $0) })
        } else {
            var merged: [L2Table] = []
            merged.reserveCapacity(tables.count + distinct)
            var next = 0
            for table in tables {
                while next < distinct, pending[next] < table.offset {
                    merged.append(L2Table(offset: pending[next]))
                    next += 1
                }
                if next < distinct, pending[next] == table.offset { next += 1 }
                merged.append(table)
            }
            merged.append(contentsOf: pending[next..<distinct].map { L2Table(offset: $0) })
            tables = merged
        }
        pending.removeAll(keepingCapacity: true)
    }

    /// The index of the table at an offset; found at once at `hint`, as L1 tables mostly follow the file's order.
    func index(of offset: HostOffset, near hint: Int) -> Int? {
        if hint < tables.count, tables[hint].offset == offset { return hint }
        var (low, high) = (0, tables.count)
        while low < high {
            let middle = (low + high) / 2
            if tables[middle].offset < offset { low = middle + 1 } else { high = middle }
        }
        return low < tables.count && tables[low].offset == offset ? low : nil
    }

    var count: Int { tables.count }

    subscript(index: Int) -> L2Table { tables[index] }

    /// The same tables, which stay as they are: the new weights are the old ones.
    var unchanged: L2Tables {
        var copy = self
        for index in copy.tables.indices { copy.tables[index].newWeight = copy.tables[index].oldWeight }
        return copy
    }
}

extension L2Table {
    /// Counts an entry of a stretch that points to the table.
    fileprivate mutating func add(_ stretch: L1Stretches.Stretch) {
        oldWeight = Self.sum(oldWeight, stretch.oldWeight)
        newWeight = Self.sum(newWeight, stretch.newWeight)
        if stretch.isActive { isActive = true }
    }

    private static func sum(_ left: UInt32, _ right: UInt32) -> UInt32 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }
}
