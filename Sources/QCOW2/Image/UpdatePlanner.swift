// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Turns a proposal into an update, without writing anything.
///
/// Section "6.3 Commit method A".
///
/// Whatever can be refused is refused here. Everything that changes goes into clusters that are free in the old state:
/// the L2 tables of the active tree whose copied flags change, every L1 table that refers to one of those, the
/// snapshot table, every refcount block whose counts change, and the refcount table.
struct UpdatePlanner {
    let state: ImageState
    let proposal: Proposal
    var count: ReferenceCount
    private var allocator: ClusterAllocator
    private var preparations: [MetadataUpdate.Preparation] = []
    /// Where L2 tables with other flags go.
    private var movedTables: [HostOffset: HostOffset] = [:]

    private var geometry: ImageGeometry { state.geometry }

    /// Plans the update that makes `proposal` of `state`; reads L2 tables from `storage`.
    static func plan<S: Storage & ~Copyable>(
        _ proposal: Proposal, from state: ImageState, reading storage: borrowing S
    ) throws(QCOW2Error) -> MetadataUpdate {
        let uses = proposal.treeUses(of: state.trees.count)
        let count = try ReferenceCount(
            in: state, treeUses: uses, activeTree: proposal.activeTree, reading: storage)
        var planner = UpdatePlanner(
            state: state, proposal: proposal, count: count, allocator: ClusterAllocator(state.refcounts))
        return try planner.plan(reading: storage)
    }

    private init(state: ImageState, proposal: Proposal, count: ReferenceCount, allocator: ClusterAllocator) {
        self.state = state
        self.proposal = proposal
        self.count = count
        self.allocator = allocator
    }

    private mutating func plan<S: Storage & ~Copyable>(
        reading storage: borrowing S
    ) throws(QCOW2Error) -> MetadataUpdate {
        for table in state.tables where !isReplaceable(table) { count.new.add(table.run, weight: 1) }
        try moveL2Tables(reading: storage)

        var header = state.header
        header.size = proposal.virtualSize
        // Unknown bits go with the first write, and so does a promise about bitmaps that aren't there.
        let keepsBitmaps = state.hasTrustedBitmaps && !proposal.dropsBitmaps
        header.autoclearFeatures.formIntersection(keepsBitmaps ? .bitmaps : [])
        try planActiveL1(&header)
        let (entries, tableByteCount) = try planSnapshots(&header)
        var refcounts = RefcountPlanner(state: state)
        try refcounts.plan(&header, &count, &allocator, &preparations)

        var update = MetadataUpdate(
            oldFileByteCount: state.fileByteCount, header: header, entries: entries,
            snapshotTableByteCount: tableByteCount, newFileByteCount: 0)
        update.preparations = preparations
        (update.freed, update.newFileByteCount) = refcounts.freedRuns(count)
        return update
    }

    /// Whether a table is one that the update may put elsewhere or drop.
    private func isReplaceable(_ table: MetadataTables.Table) -> Bool {
        switch table.kind {
        case .fixed: false
        case .bitmap: proposal.dropsBitmaps
        case .activeL1, .snapshotL1, .snapshotTable, .refcountTable, .refcountBlock: true
        }
    }

    /// The refcount that a cluster will have.
    private func newRefcount(_ cluster: UInt64) -> UInt64 {
        // Safe: the count was checked to be at least the old references.
        state.refcounts[cluster] - UInt64(count.old[cluster]) + UInt64(count.new[cluster])
    }

    private mutating func allocate(_ clusterCount: UInt64, weight: UInt32 = 1) throws(QCOW2Error) -> HostOffset {
        let run = try allocator.allocate(clusterCount, unusedIn: count.new)
        count.new.set(run, to: weight)
        return geometry.offset(ofCluster: run.first)
    }

    /// Moves every L2 table of the new active tree whose copied flags would be wrong.
    ///
    /// Section "3.4 COPIED".
    private mutating func moveL2Tables<S: Storage & ~Copyable>(reading storage: borrowing S) throws(QCOW2Error) {
        let scan = L2TableScan(geometry: geometry, fileByteCount: state.fileByteCount)
        var bytes = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        for table in count.l2Tables where table.isActive {
            let cluster = geometry.cluster(at: table.offset)
            var flags: CopiedFlags?
            if newRefcount(cluster) > 1 {
                // A snapshot reaches everything below the table, too.
                if table.hasCopiedFlags { flags = .allClear }
            } else {
                var target = bytes.mutableSpan
                try storage.read(into: &target, at: table.offset)
                flags = scan.correctedFlags(in: bytes.span) { newRefcount($0) == 1 }
            }
            guard let flags else { continue }
            let target = try allocate(1, weight: table.newWeight)
            count.new.set(ClusterRun(first: cluster, count: 1), to: 0)
            movedTables[table.offset] = target
            preparations.append(.l2Copy(of: table.offset, to: target, flags: flags))
        }
    }

    /// A tree with the L2 tables where they will be, and the copied flags given by `isCopied`.
    private func relocated(_ tree: [L1Entry], isCopied: (HostOffset) -> Bool) -> [L1Entry] {
        tree.map { entry in
            guard let offset = entry.l2Table else { return .unallocated }
            let target = movedTables[offset] ?? offset
            return L1Entry(l2Table: target, isCopied: isCopied(target))
        }
    }

    private mutating func planActiveL1(_ header: inout Header) throws(QCOW2Error) {
        var entries = relocated(state.trees[proposal.activeTree]) { newRefcount(geometry.cluster(at: $0)) == 1 }
        let needed = Int(geometry.l1EntryCount(forDiskSize: proposal.virtualSize))
        entries.append(contentsOf: repeatElement(.unallocated, count: max(0, needed - entries.count)))
        if entries == state.trees[ImageState.activeTree] {
            // Safe to keep: nothing in it changes.
            let run = geometry.run(at: header.l1TableOffset, byteCount: UInt64(entries.count) * 8)
            if let run { count.new.set(run, to: 1) }
            return
        }
        // Safe: at most 4,194,304 entries, checked for every L1 table and virtual size.
        header.l1EntryCount = UInt32(entries.count)
        header.l1TableOffset = try write(L1Entry.encodeTable(entries))
    }

    private mutating func planSnapshots(
        _ header: inout Header
    ) throws(QCOW2Error) -> ([SnapshotTableEntry], byteCount: UInt64) {
        var entries: [SnapshotTableEntry] = []
        for snapshot in proposal.snapshots {
            var entry = snapshot.entry
            // An entry without a size means the header's, which may be about to change.
            entry.diskSize = entry.diskSize ?? state.header.size
            let tree = state.trees[snapshot.tree]
            let moves = tree.contains { entry in entry.l2Table.map { movedTables[$0] != nil } ?? false }
            if snapshot.isNew || moves {
                // The flags mean nothing in a snapshot; clear ones can't mislead anybody.
                let table = L1Entry.encodeTable(relocated(tree) { _ in false })
                entry.l1EntryCount = UInt32(tree.count)
                entry.l1TableOffset = try write(table)
            } else if let run = geometry.run(at: entry.l1TableOffset, byteCount: UInt64(entry.l1EntryCount) * 8) {
                count.new.set(run, to: 1)
            }
            entries.append(entry)
        }
        header.snapshotCount = UInt32(entries.count)
        guard !entries.isEmpty else {
            header.snapshotTableOffset = HostOffset(0)
            return ([], 0)
        }
        if entries == state.entries {
            let run = state.tables.first { $0.kind == .snapshotTable }?.run
            if let run { count.new.set(run, to: 1) }
            return (entries, state.snapshotTableByteCount)
        }
        var table: [UInt8] = []
        for entry in entries {
            table.append(contentsOf: repeatElement(0, count: -table.count & 7))
            entry.encode(to: &table)
        }
        guard UInt64(table.count) <= SnapshotTableEntry.maximumTableByteCount else {
            throw QCOW2Error(.limitExceeded, "The snapshot table would be larger than 64 MiB.")
        }
        header.snapshotTableOffset = try write(table)
        return (entries, UInt64(table.count))
    }

    /// Plans to write a table into fresh clusters, filled up with zeros.
    private mutating func write(_ table: [UInt8]) throws(QCOW2Error) -> HostOffset {
        let clusterCount = geometry.clusterCount(forBytes: UInt64(table.count))
        guard clusterCount > 0 else { return HostOffset(0) }
        let offset = try allocate(clusterCount)
        let byteCount = Int(clusterCount) * geometry.clusterByteCount
        let padding = repeatElement(UInt8(0), count: byteCount - table.count)
        preparations.append(.table(table + padding, at: offset))
        return offset
    }
}
