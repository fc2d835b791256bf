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
    private var l2Tables: L2Tables
    private let flagChanges: [(table: Int, flags: CopiedFlags)]
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
        let l2Tables = try L2Tables(
            of: state, treeUses: proposal.treeUses(of: state.treeCount), activeTree: proposal.activeTree,
            reading: storage, dropping: { proposal.drops(l1Index: $0) })
        // Nearly always the narrowest lanes do; what they can't count, wider ones do.
        var narrow = ReferenceCount<UInt16>(state, l2Tables, budget: budget)
        if try narrow.count(reading: storage, &work) {
            return try plan(proposal, narrow, storage)
        }
        narrow.discard()
        var medium = ReferenceCount<UInt32>(state, l2Tables, budget: budget)
        if try medium.count(reading: storage, &work) {
            return try plan(proposal, medium, storage)
        }
        medium.discard()
        var wide = ReferenceCount<UInt64>(state, l2Tables, budget: budget)
        guard try wide.count(reading: storage, &work) else { throw .overflow("number of references") }
        return try plan(proposal, wide, storage)
    }

    private static func plan<Lane, S: Storage & ~Copyable>(
        _ proposal: Proposal, _ count: ReferenceCount<Lane>, _ storage: borrowing S
    ) throws(QCOW2Error) -> MetadataUpdate {
        var planner = UpdatePlanner(proposal, count)
        return try planner.plan(storage)
    }

    /// Plans the repair of an image whose references were counted already; reads L1 tables from `storage`.
    static func planRepair<S: Storage & ~Copyable>(
        _ proposal: Proposal, from state: ImageState, _ l2Tables: L2Tables,
        _ flagChanges: [(table: Int, flags: CopiedFlags)], _ blocks: BlockSurvey, _ changes: any ReferenceChanges,
        _ allocator: ClusterAllocator, reading storage: borrowing S
    ) throws(QCOW2Error) -> MetadataUpdate {
        var planner = UpdatePlanner(proposal, state, l2Tables, flagChanges, blocks, changes, allocator)
        return try planner.plan(storage)
    }

    private init(
        _ proposal: Proposal, _ state: ImageState, _ l2Tables: L2Tables,
        _ flagChanges: [(table: Int, flags: CopiedFlags)], _ blocks: BlockSurvey, _ changes: any ReferenceChanges,
        _ allocator: ClusterAllocator
    ) {
        self.state = state
        self.proposal = proposal
        self.l2Tables = l2Tables
        self.flagChanges = flagChanges
        self.blocks = blocks
        self.changes = changes
        self.allocator = allocator
        refcounts = RefcountPlanner(state.refcounts, blocks)
    }

    private init<Lane>(_ proposal: Proposal, _ count: ReferenceCount<Lane>) {
        state = count.state
        self.proposal = proposal
        l2Tables = count.l2Tables
        flagChanges = count.flags.changes
        blocks = count.blocks
        changes = count
        allocator = ClusterAllocator(count.blocks, in: count.state.geometry)
        refcounts = RefcountPlanner(count.state.refcounts, count.blocks)
    }

    private mutating func plan<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) -> MetadataUpdate {
        try moveL2Tables()
        try planResizing(storage)
        var header = state.header
        header.size = proposal.virtualSize
        if let repair = proposal.repair { header.incompatibleFeatures.subtract(repair.clearedFeatures) }
        // Unknown bits go with the first write, and so does a promise about bitmaps that aren't there.
        let keepsBitmaps = state.hasTrustedBitmaps && !proposal.dropsBitmaps
        header.autoclearFeatures.formIntersection(keepsBitmaps ? .bitmaps : [])
        if proposal.dropsBitmaps {
            for table in state.tables where table.kind == .bitmap { adjust(table.run, -1) }
        }
        try planActiveL1(&header, storage)
        let (entries, tableByteCount) = try planSnapshots(&header, storage)
        let (targets, table) = try refcounts.plan(&header, &allocator, &adjustments)
        tables.append((table, header.refcountTableOffset))
        adjustments.sort()
        return MetadataUpdate(
            oldFileByteCount: state.fileByteCount, tables: tables, l2Tables: l2Tables, flagChanges: flagChanges,
            refcounts: RefcountPlan(
                table: state.refcounts, targets: targets, changes: changes, setsAllRefcounts: proposal.repair != nil,
                blocks: blocks, adjustments: adjustments, reserve: reserve(targets)),
            header: header, entries: entries, snapshotTableByteCount: tableByteCount)
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
            l2Tables[change.table].target = geometry.offset(ofCluster: target.first)
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
            let table = l2Tables[index]
            let isCopied = isActive && (proposal.repair?.setsFlags == false ? entry.isCopied : table.isPrivate)
            return entry.with(
                l2Table: table.target.rawValue == 0 ? offset : table.target, isCopied: isCopied)
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
        _ header: inout Header, _ storage: borrowing S
    ) throws(QCOW2Error) -> ([SnapshotTableEntry], byteCount: UInt64) {
        if proposal.repair?.keepsSnapshotTable == true { return (state.entries, state.snapshotTableByteCount) }
        var entries: [SnapshotTableEntry] = []
        var kept: Set<Int> = []
        for snapshot in proposal.snapshots {
            var entry = snapshot.entry
            // An entry without a size means the header's, which may be about to change.
            entry.diskSize = entry.diskSize ?? state.header.size
            if snapshot.isNew || !flagChanges.isEmpty {
                let tree = try state.readTree(snapshot.tree, from: storage)
                if snapshot.isNew || hasMovedTable(tree) {
                    // The flags mean nothing in a snapshot; clear ones can't mislead anybody.
                    entry.l1EntryCount = UInt32(tree.count)
                    entry.l1TableOffset = try write(L1Entry.encodeTable(relocated(tree, isActive: false)))
                } else {
                    kept.insert(snapshot.tree)
                }
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

    private func hasMovedTable(_ tree: [L1Entry]) -> Bool {
        var hint = 0
        return tree.contains { entry in
            guard let offset = entry.l2Table else { return false }
            return l2Tables.target(of: offset, near: &hint) != offset
        }
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
        var table: [UInt8] = []
        for entry in entries {
            table.append(contentsOf: repeatElement(0, count: -table.count & 7))
            entry.encode(to: &table)
        }
        guard UInt64(table.count) <= SnapshotTableEntry.maximumTableByteCount else {
            throw QCOW2Error(.limitExceeded, "The snapshot table would be larger than 64 MiB.")
        }
        header.snapshotTableOffset = try write(table)
        return UInt64(table.count)
    }

    /// Plans to write a table into fresh clusters, filled up with zeros.
    mutating func write(_ table: [UInt8]) throws(QCOW2Error) -> HostOffset {
        let clusterCount = geometry.clusterCount(forBytes: UInt64(table.count))
        guard clusterCount > 0 else { return HostOffset(0) }
        let offset = try allocate(clusterCount)
        let byteCount = Int(clusterCount) * geometry.clusterByteCount
        tables.append((table + repeatElement(UInt8(0), count: byteCount - table.count), offset))
        return offset
    }
}
