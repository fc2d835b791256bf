// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An L2 table, and the trees it is part of.
struct L2Table: Sendable {
    let offset: HostOffset
    /// L1 entries that point to it, in all trees of the file as it is.
    var oldWeight: UInt32 = 0
    /// L1 entries that will.
    var newWeight: UInt32 = 0
    /// Whether the proposed active tree reaches it.
    var isActive = false
    var flags = L2TableScan.Flags()
    /// The index of some L1 entry that points to it; only known to a check.
    var firstL1Index: UInt32 = 0
    /// Whether its own new refcount is one.
    var isPrivate = false
    /// The trees of the file as it is that reach it.
    var owner = TreeOwner.none
    /// Where it goes when its flags change; zero when it stays.
    var target = HostOffset(0)
    /// The clusters that it refers to all lie in here, once it was read.
    var targets: Range<UInt64> = 0..<UInt64.max
    /// Its runs in ``L2Tables/runs``, if they were few enough to keep.
    var runs: Range<UInt32>?
}

/// Every distinct L2 table of all trees, in the order of the file.
///
/// Section "3.3 The multiplicity rule".
///
/// Each has a weight, the number of L1 entries that point to it; so a table is read once, whatever the number of trees
/// it is part of. Costs O(L1 entries of all trees), nearly always without a search, and 72 bytes per distinct table.
struct L2Tables: Sendable {
    private(set) var tables: [L2Table] = []
    /// The runs of those tables that have few, one table after the other.
    private(set) var runs: [ClusterRun] = []

    /// No tables.
    init() {}

    /// Collects the tables of all trees.
    ///
    /// L1 entries of the old active tree that are dropped count as references of the old state alone.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an L1 entry that can't be, or ``QCOW2Error/Code/inputOutput``.
    init<S: Storage & ~Copyable>(
        of state: ImageState, treeUses: [UInt32], activeTree: Int, reading storage: borrowing S,
        dropping isDropped: (_ l1Index: Int) -> Bool = { _ in false }
    ) throws(QCOW2Error) {
        for tree in 0..<state.treeCount {
            var entries = try state.readTree(tree, from: storage)
            if tree == ImageState.activeTree {
                var dropped = entries
                for index in entries.indices {
                    if isDropped(index) {
                        entries[index] = .unallocated
                    } else {
                        dropped[index] = .unallocated
                    }
                }
                try add(dropped, owner: TreeOwner(tree: tree), newWeight: 0, isActive: false)
            }
            try add(
                entries, owner: TreeOwner(tree: tree), newWeight: treeUses[tree], isActive: tree == activeTree)
        }
    }

    private mutating func add(
        _ entries: [L1Entry], owner: TreeOwner, newWeight: UInt32, isActive: Bool
    ) throws(QCOW2Error) {
        var missing: [HostOffset] = []
        var hint = 0
        for entry in entries {
            guard let offset = entry.l2Table else { continue }
            if let index = index(of: offset, near: hint) { hint = index + 1 } else { missing.append(offset) }
        }
        if !missing.isEmpty { merge(missing) }
        hint = 0
        for entry in entries {
            guard let offset = entry.l2Table, let index = index(of: offset, near: hint) else { continue }
            hint = index + 1
            // Safe in any real file, as all L1 entries are in it; a sparse one that claims more is refused here.
            let (old, oldOverflow) = tables[index].oldWeight.addingReportingOverflow(1)
            let (new, newOverflow) = tables[index].newWeight.addingReportingOverflow(newWeight)
            guard !oldOverflow, !newOverflow else { throw .overflow("number of references", at: offset) }
            tables[index].oldWeight = old
            tables[index].newWeight = new
            tables[index].owner = tables[index].owner.joined(with: owner)
            if isActive { tables[index].isActive = true }
        }
    }

    /// Adds tables at offsets, unless they are there already.
    mutating func insert(_ offsets: [HostOffset]) {
        let missing = offsets.filter { index(of: $0, near: 0) == nil }
        if !missing.isEmpty { merge(missing) }
    }

    private mutating func merge(_ offsets: [HostOffset]) {
        var distinct = offsets.sorted()
        var end = 1
        for index in 1..<max(1, distinct.count) where distinct[index] != distinct[end - 1] {
            distinct[end] = distinct[index]
            end += 1
        }
        distinct.removeLast(distinct.count - end)
        let isAppending = tables.last.map { $0.offset < distinct[0] } ?? true
        tables.append(contentsOf: distinct.map { L2Table(offset: $0) })
        if !isAppending { tables.sort { $0.offset < $1.offset } }
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

    /// Where a table will be.
    func target(of offset: HostOffset, near hint: inout Int) -> HostOffset {
        guard let index = index(of: offset, near: hint) else { return offset }
        hint = index + 1
        return tables[index].target.rawValue == 0 ? offset : tables[index].target
    }

    var count: Int { tables.count }

    subscript(index: Int) -> L2Table {
        get { tables[index] }
        set { tables[index] = newValue }
    }

    /// The most runs that are kept for all tables together: 4 MiB.
    private static let maximumRunCount = 1 << 18
    /// The most runs of a table that are worth keeping.
    static let maximumRunCountPerTable = 4

    /// What a table refers to, if it was kept.
    func keptRuns(of table: L2Table) -> ArraySlice<ClusterRun>? {
        table.runs.map { runs[Int($0.lowerBound)..<Int($0.upperBound)] }
    }

    /// Keeps what a table was found to refer to; its runs, if they are few and there is room.
    mutating func note(_ findings: L2TableFindings, of index: Int) {
        tables[index].targets = findings.targets
        tables[index].flags = findings.flags
        guard let found = findings.keptRuns, runs.count + found.count <= Self.maximumRunCount else { return }
        tables[index].runs = UInt32(runs.count)..<UInt32(runs.count + found.count)
        runs += found
    }
}
