// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The true number of references to every cluster, before and after a proposed change.
///
/// Section "3.3 The multiplicity rule".
///
/// Each distinct L2 table is read once, in file order, whatever the number of trees it is part of: first every L1
/// entry adds to its L2 table's weight, then each table adds its weights to everything it refers to. Costs one read
/// of every distinct L2 table, O(L1 entries of all trees) and O(entries of the distinct L2 tables).
struct ReferenceCount: Sendable {
    /// References in the file as it is.
    private(set) var old = ClusterCounts()
    /// References as proposed.
    ///
    /// Starts without tables that the planner may replace: it adds those it keeps or writes.
    var new = ClusterCounts()
    /// Every L2 table of the old state, in file order.
    private(set) var l2Tables: [L2Table] = []

    /// An L2 table and the trees it is part of.
    struct L2Table: Hashable, Sendable {
        let offset: HostOffset
        /// L1 entries that point to it, in all trees.
        var oldWeight: UInt32 = 0
        var newWeight: UInt32 = 0
        /// Whether the proposed active tree reaches it.
        var isActive = false
        /// Whether any of its entries carries the copied flag.
        var hasCopiedFlags = false
    }

    /// Counts all references.
    ///
    /// - Parameters:
    ///   - state: The state to count in.
    ///   - treeUses: For each tree of `state`, how many trees of the proposed state have its mappings.
    ///   - activeTree: The tree whose mappings the proposed active one has.
    ///   - storage: Where the L2 tables are.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that can't be, or ``QCOW2Error/Code/inputOutput``.
    init<S: Storage & ~Copyable>(
        in state: ImageState, treeUses: [UInt32], activeTree: Int, reading storage: borrowing S
    ) throws(QCOW2Error) {
        let geometry = state.geometry
        var indices: [HostOffset: Int] = [:]
        for (tree, entries) in state.trees.enumerated() {
            for case .some(let offset) in entries.lazy.map(\.l2Table) {
                let index = indices[offset] ?? l2Tables.count
                if index == l2Tables.count {
                    indices[offset] = index
                    l2Tables.append(L2Table(offset: offset))
                }
                // Safe: at most 65,537 trees of 4,194,304 entries, which are all in the file: below 2^32 in any real
                // one, and a sparse one that claims more is refused here.
                let (oldWeight, oldOverflow) = l2Tables[index].oldWeight.addingReportingOverflow(1)
                let (newWeight, newOverflow) = l2Tables[index].newWeight.addingReportingOverflow(treeUses[tree])
                guard !oldOverflow, !newOverflow else { throw .overflow("number of references", at: offset) }
                l2Tables[index].oldWeight = oldWeight
                l2Tables[index].newWeight = newWeight
                if tree == activeTree { l2Tables[index].isActive = true }
            }
        }
        l2Tables.sort { $0.offset < $1.offset }

        let scan = L2TableScan(geometry: geometry, fileByteCount: state.fileByteCount)
        var bytes = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        for index in l2Tables.indices {
            let table = l2Tables[index]
            var target = bytes.mutableSpan
            try storage.read(into: &target, at: table.offset)
            let own = ClusterRun(first: geometry.cluster(at: table.offset), count: 1)
            old.add(own, weight: table.oldWeight)
            new.add(own, weight: table.newWeight)
            var (old, new) = (ClusterCounts(), ClusterCounts())
            swap(&old, &self.old)
            swap(&new, &self.new)
            l2Tables[index].hasCopiedFlags = try scan.forEachRun(in: bytes.span, at: table.offset) { run in
                old.add(run, weight: table.oldWeight)
                if table.newWeight > 0 { new.add(run, weight: table.newWeight) }
            }
            swap(&old, &self.old)
            swap(&new, &self.new)
        }
        for table in state.tables { old.add(table.run, weight: 1) }
        guard !old.hasOverflowed, !new.hasOverflowed else { throw .overflow("number of references") }
        try checkTrust(in: state)
    }

    /// Checks that the refcounts can be trusted to say what is free, and that nothing but itself is in a table.
    ///
    /// Invariants I-9, and that no refcount is too low: condition S1 of section "6.0 Model".
    private func checkTrust(in state: ImageState) throws(QCOW2Error) {
        let geometry = state.geometry
        for (name, run) in state.tables.lazy.map({ ($0.name, $0.run) }) {
            for cluster in run.first..<run.end where old[cluster] != 1 {
                throw QCOW2Error(
                    .corrupt, "Something else refers to a cluster of the \(name).",
                    at: geometry.offset(ofCluster: cluster))
            }
        }
        for table in l2Tables where old[geometry.cluster(at: table.offset)] != table.oldWeight {
            throw QCOW2Error(.corrupt, "Something else refers to an L2 table.", at: table.offset)
        }
        for (page, counts) in old.pages.enumerated() where !counts.isEmpty {
            for (index, count) in counts.enumerated() where count > 0 {
                let cluster = UInt64(page) << ClusterCounts.pageBits + UInt64(index)
                let stored = state.refcounts[cluster]
                guard stored < UInt64(count) else { continue }
                throw QCOW2Error(
                    .corrupt,
                    stored == 0
                        ? "A cluster in use has the refcount 0, so the refcounts can't be trusted."
                        : "A cluster has the refcount \(stored) but \(count) references.",
                    at: geometry.offset(ofCluster: cluster))
            }
        }
    }
}
