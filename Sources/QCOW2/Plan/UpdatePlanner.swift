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
    private let l2Tables: L2Tables
    private let flagChanges: [(table: Int, flags: CopiedFlags)]
    /// By the L2 table's index, whether its refcount will be one as long as it stays where it is.
    private let isPrivate: [Bool]
    /// Where the L2 tables go whose flags change, by their index.
    private var targets: [Int: HostOffset] = [:]
    private let blocks: BlockSurvey
    private let changes: any ReferenceChanges
    var allocator: ClusterAllocator
    private var refcounts: RefcountPlanner
    private var adjustments = RefcountAdjustments()
    var tables: [(bytes: [UInt8], offset: HostOffset)] = []
    /// Where the tables are that a change of size adds to the active tree, by their L1 index.
    var addedTables: [Int: HostOffset] = [:]

    var geometry: ImageGeometry { state.geometry }

    /// Plans the update that makes `proposal` of `state`; reads L2 tables and refcounts from `storage`.
    static func plan<S: Storage & ~Copyable>(
        _ proposal: Proposal, from state: ImageState, reading storage: borrowing S, budget: Int,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) -> MetadataUpdate {
        let parts = state.l1Parts(
            uses: proposal.treeUses(of: state.treeCount), activeTree: proposal.activeTree,
            dropping: proposal.droppedL1Entries)
        let sweep = ReferenceSweep(
            try state.l2Tables(parts, reading: storage, &work), in: state.geometry, fileByteCount: state.fileByteCount)
        // Narrow lanes are enough for nearly every image. If some cluster has more references than they can count, the
        // next width counts again.
        if let update = try plan(proposal, state, sweep, storage, budget, &work, UInt16.self) { return update }
        if let update = try plan(proposal, state, sweep, storage, budget, &work, UInt32.self) { return update }
        if let update = try plan(proposal, state, sweep, storage, budget, &work, UInt64.self) { return update }
        throw .overflow("number of references")
    }

    private static func plan<Lane, S: Storage & ~Copyable>(
        _ proposal: Proposal, _ state: ImageState, _ sweep: ReferenceSweep, _ storage: borrowing S, _ budget: Int,
        _ work: inout WorkMeter, _: Lane.Type
    ) throws(QCOW2Error) -> MetadataUpdate?
    where Lane: FixedWidthInteger & UnsignedInteger & Sendable {
        var count = ReferenceCount<Lane>(state, sweep, budget: budget, dropsBitmaps: proposal.dropsBitmaps)
        guard try count.count(reading: storage, &work) else { return nil }
        var planner = UpdatePlanner(
            proposal, state, count.sweep.tables, count.flags.changes, isPrivate: count.flags.isPrivate, count.blocks,
            count, ClusterAllocator(count.blocks, in: state.geometry))
        count.discard()
        return try planner.plan(storage, &work)
    }

    /// Plans the repair of an image whose references were counted already; reads L1 tables from `storage`.
    static func planRepair<S: Storage & ~Copyable>(
        _ proposal: Proposal, from state: ImageState, _ l2Tables: L2Tables, _ flags: ActiveFlags, setsFlags: Bool,
        _ blocks: BlockSurvey, _ changes: any ReferenceChanges, _ allocator: ClusterAllocator,
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> MetadataUpdate {
        var planner = UpdatePlanner(
            proposal, state, l2Tables, setsFlags ? flags.changes : [], isPrivate: flags.isPrivate, blocks, changes,
            allocator)
        return try planner.plan(storage, &work)
    }

    private init(
        _ proposal: Proposal, _ state: ImageState, _ l2Tables: L2Tables,
        _ flagChanges: [(table: Int, flags: CopiedFlags)], isPrivate: [Bool], _ blocks: BlockSurvey,
        _ changes: any ReferenceChanges, _ allocator: ClusterAllocator
    ) {
        self.state = state
        self.proposal = proposal
        self.l2Tables = l2Tables
        self.flagChanges = flagChanges
        self.isPrivate = isPrivate
        self.blocks = blocks
        self.changes = changes
        self.allocator = allocator
        refcounts = RefcountPlanner(state.refcounts, blocks)
    }

    private mutating func plan<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> MetadataUpdate {
        try moveL2Tables()
        try planResizing(storage)
        var header = state.header
        header.size = proposal.virtualSize
        if let repair = proposal.repair { header.incompatibleFeatures.subtract(repair.clearedFeatures) }
        // Unknown bits go with the first write, and so does a promise about bitmaps that aren't there.
        let keepsBitmaps = state.hasTrustedBitmaps && !proposal.dropsBitmaps
        header.autoclearFeatures.formIntersection(keepsBitmaps ? .bitmaps : [])
        try planActiveL1(&header, storage)
        let (entries, tableByteCount) = try planSnapshots(&header, storage, &work)
        let (blockTargets, table) = try refcounts.plan(&header, &allocator, &adjustments)
        tables.append((table, header.refcountTableOffset))
        adjustments.sort()
        let update = MetadataUpdate(
            oldFileByteCount: state.fileByteCount, tables: tables, movedTables: movedTables,
            refcounts: RefcountPlan(
                table: state.refcounts, targets: blockTargets, changes: changes,
                setsAllRefcounts: proposal.repair != nil, blocks: blocks, adjustments: adjustments,
                reserve: reserve(blockTargets)),
            header: header, entries: entries, snapshotTableByteCount: tableByteCount)
        assert(isSound(update, blocks))
        return update
    }

    /// The L2 tables whose flags change, with their new places.
    private var movedTables: [MetadataUpdate.MovedTable] {
        flagChanges.compactMap { change in
            targets[change.table].map {
                MetadataUpdate.MovedTable(source: l2Tables[change.table].offset, target: $0, flags: change.flags)
            }
        }
    }

    mutating func adjust(_ run: ClusterRun?, _ change: Int64) {
        guard let run else { return }
        adjustments.add(run, change)
        refcounts.note(run)
    }

    private mutating func allocate(_ clusterCount: UInt64) throws(QCOW2Error) -> HostOffset {
        let run = try allocator.allocate(clusterCount)
        adjust(run, 1)
        return geometry.offset(ofCluster: run.first)
    }

    /// Moves every L2 table of the new active tree whose copied flags would be wrong.
    ///
    /// All to one place, so that they are written at once, and read at once by the next operation.
    private mutating func moveL2Tables() throws(QCOW2Error) {
        guard !flagChanges.isEmpty else { return }
        let run = try allocator.allocate(UInt64(flagChanges.count))
        for (position, change) in flagChanges.enumerated() {
            let table = l2Tables[change.table]
            let weight = Int64(table.newWeight)
            let target = ClusterRun(first: run.first + UInt64(position), count: 1)
            targets[change.table] = geometry.offset(ofCluster: target.first)
            adjust(target, weight)
            adjust(ClusterRun(first: geometry.cluster(at: table.offset), count: 1), -weight)
        }
    }

    /// The clusters of replaced L2 tables and refcount blocks that are not given back to the file system, in the order
    /// of the file.
    ///
    /// Runs of one or two, if there are many clusters: punching so many small holes can take as long as the rest of the
    /// operation, for little space. They are free in the image, and the guest's next writes use them first.
    private func reserve(_ blocks: [(index: Int, offset: HostOffset)]) -> [UInt64] {
        var clusters = flagChanges.map { geometry.cluster(at: l2Tables[$0.table].offset) }
        for block in blocks {
            if let old = state.refcounts.blockOffset(block.index) { clusters.append(geometry.cluster(at: old)) }
        }
        guard clusters.count > 256 else { return [] }
        clusters.sort()
        var reserve: [UInt64] = []
        var start = 0
        for end in 1...clusters.count
        where end == clusters.count || clusters[end] != clusters[end - 1] + 1 {
            if end - start <= 2 { reserve += clusters[start..<end] }
            start = end
        }
        return reserve
    }

    /// A tree with the L2 tables where they will be, and the copied flags where they belong.
    private func relocated(_ tree: [L1Entry], isActive: Bool) -> [L1Entry] {
        var hint = 0
        return tree.map { entry in
            // Only a damaged image has entries that are neither empty nor point to a table; they stay as they are.
            guard let offset = entry.l2Table, let index = l2Tables.index(of: offset, near: hint) else { return entry }
            hint = index + 1
            // A table that moves has exactly the refcount that it needs; one that stays keeps what leaked, too.
            let target = targets[index]
            let isOne = target == nil ? isPrivate[index] : l2Tables[index].newWeight == 1
            let isCopied = isActive && (proposal.repair?.setsFlags == false ? entry.isCopied : isOne)
            return entry.with(l2Table: target ?? offset, isCopied: isCopied)
        }
    }

    private mutating func planActiveL1<S: Storage & ~Copyable>(
        _ header: inout Header, _ storage: borrowing S
    ) throws(QCOW2Error) {
        let old = try state.readTree(ImageState.activeTree, from: storage)
        let source =
            proposal.activeTree == ImageState.activeTree ? old : try state.readTree(proposal.activeTree, from: storage)
        var entries = relocated(source, isActive: true)
        if proposal.repair == nil {
            let needed = Int(geometry.l1EntryCount(forDiskSize: proposal.virtualSize))
            entries.append(contentsOf: repeatElement(.unallocated, count: max(0, needed - entries.count)))
        }
        for index in source.indices where proposal.drops(l1Index: index) { entries[index] = .unallocated }
        for (index, table) in addedTables { entries[index] = L1Entry(l2Table: table, isCopied: true) }
        if entries == old, proposal.repair?.movesActiveL1 != true { return }
        adjust(geometry.run(at: header.l1TableOffset, byteCount: UInt64(old.count * L1Entry.byteCount)), -1)
        // Safe: at most 4,194,304 entries, checked for every L1 table and virtual size.
        header.l1EntryCount = UInt32(entries.count)
        header.l1TableOffset = try write(L1Entry.encodeTable(entries))
    }

    private mutating func planSnapshots<S: Storage & ~Copyable>(
        _ header: inout Header, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> ([SnapshotTableEntry], byteCount: UInt64) {
        if proposal.repair?.keepsSnapshotTable == true { return (state.entries, state.snapshotTableByteCount) }
        var entries: [SnapshotTableEntry] = []
        var kept: Set<Int> = []
        for snapshot in proposal.snapshots {
            var entry = snapshot.entry
            // An entry without a size means the header's, which may be about to change.
            entry.diskSize = entry.diskSize ?? state.header.size
            let hasMoved = try hasMovedTable(snapshot.tree, storage, &work)
            if snapshot.isNew || hasMoved {
                let tree = try state.readTree(snapshot.tree, from: storage)
                // The flags mean nothing in a snapshot; clear ones can't mislead anybody.
                entry.l1EntryCount = UInt32(tree.count)
                entry.l1TableOffset = try write(L1Entry.encodeTable(relocated(tree, isActive: false)))
            } else {
                kept.insert(snapshot.tree)
            }
            entries.append(entry)
        }
        for (index, entry) in state.entries.enumerated() where !kept.contains(index + 1) {
            adjust(geometry.run(at: entry.l1TableOffset, byteCount: UInt64(entry.l1EntryCount) * 8), -1)
        }
        return (entries, try planSnapshotTable(entries, &header))
    }

    private func hasMovedTable<S: Storage & ~Copyable>(
        _ tree: Int, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Bool {
        guard !flagChanges.isEmpty else { return false }
        var hint = 0
        var hasMoved = false
        try state.forEachL1Entry(of: tree, reading: storage, &work) { (_, entry) throws(QCOW2Error) in
            guard !hasMoved, let offset = entry.l2Table, let index = l2Tables.index(of: offset, near: hint) else {
                return
            }
            hint = index + 1
            hasMoved = targets[index] != nil
        }
        return hasMoved
    }

    /// Plans the snapshot table, and returns its length in bytes.
    private mutating func planSnapshotTable(
        _ entries: [SnapshotTableEntry], _ header: inout Header
    ) throws(QCOW2Error) -> UInt64 {
        let isSame = entries == state.entries && proposal.repair?.rewritesSnapshotTable != true
        // A repair that leaves the table alone must not touch what it couldn't read of it.
        if isSame, !entries.isEmpty || proposal.repair != nil { return state.snapshotTableByteCount }
        adjust(state.tables.first { $0.kind == .snapshotTable }?.run, -1)
        header.snapshotCount = UInt32(entries.count)
        guard !entries.isEmpty else {
            header.snapshotTableOffset = HostOffset(0)
            return 0
        }
        let byteCount = UInt64(entries.reduce(0) { ($0 + 7) / 8 * 8 + $1.encodedByteCount })
        guard byteCount <= SnapshotTableEntry.maximumTableByteCount else {
            throw QCOW2Error(.limitExceeded, "The snapshot table would be larger than 64 MiB.")
        }
        var table: [UInt8] = []
        // With the zeros that will fill up the last cluster, so that the table is in memory only once.
        table.reserveCapacity(Int(geometry.clusterCount(forBytes: byteCount)) * geometry.clusterByteCount)
        for entry in entries {
            table.append(contentsOf: repeatElement(0, count: -table.count & 7))
            entry.encode(to: &table)
        }
        assert(UInt64(table.count) == byteCount)
        header.snapshotTableOffset = try write(consume table)
        return byteCount
    }

    /// Plans to write a table into fresh clusters, filled up with zeros.
    mutating func write(_ table: consuming [UInt8]) throws(QCOW2Error) -> HostOffset {
        let clusterCount = geometry.clusterCount(forBytes: UInt64(table.count))
        guard clusterCount > 0 else { return HostOffset(0) }
        let offset = try allocate(clusterCount)
        let byteCount = Int(clusterCount) * geometry.clusterByteCount
        table.append(contentsOf: repeatElement(0, count: byteCount - table.count))
        tables.append((table, offset))
        return offset
    }
}
