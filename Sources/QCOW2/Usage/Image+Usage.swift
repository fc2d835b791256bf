// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How an operation that only reads an image's metadata does it.
public struct ScanOptions: Sendable {
    /// About how many bytes of memory to use for what is known about clusters, at least 1 MiB.
    ///
    /// An image whose clusters don't fit is looked at in several passes; the default is enough for one pass of 1 TiB of
    /// clusters of 64 KiB.
    public var memoryBudget = 72 << 20
    /// Called between batches of work, from the thread that does it.
    ///
    /// When it returns false the operation stops with ``QCOW2Error/Code/cancelled``.
    public var progress: (@Sendable (Progress) -> Bool)?

    /// The defaults.
    public init() {}
}

extension Image where S: ~Copyable {
    /// Says what the file is used for, and how much each state of the disk holds.
    ///
    /// One pass over the metadata: reads every L1 table twice, every distinct L2 table and every refcount block once,
    /// and no data; needs neither backing files nor encryption keys. Memory is bounded by the budget, plus about 100
    /// bytes for each distinct L2 table. Changes nothing.
    ///
    /// - Parameter options: Memory and progress.
    /// - Returns: The numbers, exact for what the metadata says; refcounts decide only what counts as leaked.
    /// - Throws: ``QCOW2Error`` with the code `corrupt` for an entry or a table that can't be, `unsupported` for an
    ///   external data file, `inputOutput`, or `cancelled`.
    public func usage(options: ScanOptions = ScanOptions()) throws(QCOW2Error) -> ImageUsage {
        try checkDataIsHere()
        let state = try ImageState(opened, reading: storage)
        var work = WorkMeter(options.progress)
        let uses = [UInt32](repeating: 0, count: state.treeCount)
        let parts = state.l1Parts(uses: uses, activeTree: ImageState.activeTree)
        var owners: [TreeOwner] = []
        let l2Tables = try state.l2Tables(parts, reading: storage, &work) { stretch, table in
            // Tables are numbered once all are known, in any order.
            if table >= owners.count {
                owners.append(contentsOf: repeatElement(.none, count: max(table + 1 - owners.count, owners.count)))
            }
            owners[table] = owners[table].joined(with: stretch.owner)
        }
        let sweep = ReferenceSweep(l2Tables, in: state.geometry, fileByteCount: state.fileByteCount)
        if OwnerWindow<UInt8>.fits(treeCount: state.treeCount) {
            return try usage(OwnerCount<UInt8>(state, sweep, owners, budget: options.memoryBudget), state, &work)
        }
        if OwnerWindow<UInt16>.fits(treeCount: state.treeCount) {
            return try usage(OwnerCount<UInt16>(state, sweep, owners, budget: options.memoryBudget), state, &work)
        }
        return try usage(OwnerCount<UInt32>(state, sweep, owners, budget: options.memoryBudget), state, &work)
    }

    private func usage<Lane>(
        _ owners: consuming OwnerCount<Lane>, _ state: ImageState, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> ImageUsage {
        try owners.count(reading: storage, &work)
        let clusterSize = state.geometry.clusterSize
        var states: [StateUsage] = []
        // For each table, the last tree that it was counted for: one that is in a tree twice occupies its place once.
        let l2Tables = owners.sweep.tables
        var lastTrees = [Int](repeating: -1, count: l2Tables.count)
        for tree in 0..<state.treeCount {
            let size = tree == ImageState.activeTree ? header.size : entries[tree - 1].diskSize ?? header.size
            var usage = StateUsage(virtualSize: size)
            let l1ClusterCount = state.geometry.clusterCount(forBytes: state.l1ByteCount(of: tree))
            var occupied = l1ClusterCount
            var hint = 0
            try state.forEachL1Entry(of: tree, reading: storage, &work) { (_, entry) throws(QCOW2Error) in
                guard let offset = entry.l2Table, let index = l2Tables.index(of: offset, near: hint) else { return }
                hint = index + 1
                let table = owners.tableUsages[index]
                usage.mappedByteCount &+= UInt64(table.mappedCount) &* clusterSize
                usage.compressedByteCount &+= UInt64(table.compressedCount) &* clusterSize
                usage.compressedStoredByteCount &+= UInt64(table.compressedSectorCount) &* ImageGeometry.sectorSize
                if lastTrees[index] != tree { occupied &+= UInt64(table.hostClusterCount) &+ 1 }
                lastTrees[index] = tree
            }
            let exclusive = owners.clusterCounts[tree + TreeOwner.treeBase] &+ l1ClusterCount
            usage.exclusiveByteCount = exclusive &* clusterSize
            usage.sharedByteCount = (occupied - min(occupied, exclusive)) &* clusterSize
            states.append(usage)
        }
        return ImageUsage(
            active: states.removeFirst(), snapshots: states, file: try fileUsage(owners, state))
    }

    private func fileUsage<Lane>(
        _ owners: OwnerCount<Lane>, _ state: ImageState
    ) throws(QCOW2Error) -> FileUsage {
        let clusterSize = state.geometry.clusterSize
        var usage = FileUsage(
            byteCount: state.fileByteCount, allocatedByteCount: try storage.allocatedByteCount(),
            metadata: MetadataUsage(state))
        usage.metadata.l2Tables = UInt64(owners.sweep.tables.count) &* clusterSize
        let counts = owners.clusterCounts
        var belowTrees = counts[Int(TreeOwner.several.rawValue)]
        for tree in 0..<state.treeCount { belowTrees &+= counts[tree + TreeOwner.treeBase] }
        let tableCount = UInt64(owners.sweep.tables.count)
        usage.dataByteCount = (belowTrees - min(belowTrees, tableCount)) &* clusterSize
        usage.leakedByteCount = owners.leakedCount &* clusterSize
        let unreferenced = counts[Int(TreeOwner.none.rawValue)]
        usage.freeByteCount = (unreferenced - min(unreferenced, owners.leakedCount)) &* clusterSize
        return usage
    }
}
