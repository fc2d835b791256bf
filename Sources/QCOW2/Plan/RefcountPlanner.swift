// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Plans the refcount blocks and the refcount table of the new state.
///
/// Section "6.3 Commit method A", fix point.
///
/// Every block whose counts change is written anew; a new block is itself a cluster whose count changes, and perhaps
/// in another block, so this goes on until no block is left. Growth of the table is the same: a longer one is taken.
struct RefcountPlanner {
    let geometry: ImageGeometry
    let table: RefcountTable
    /// The blocks that change.
    private var changed: Set<Int> = []
    /// The blocks that change in the order in which that was found, and how many of them have a place.
    private var found: [Int] = []
    private var placedCount = 0
    private var targets: [Int: HostOffset] = [:]

    init(_ table: RefcountTable, _ blocks: BlockSurvey) {
        geometry = table.geometry
        self.table = table
        for index in blocks.hasChanges.indices where blocks.hasChanges[index] { change(index) }
    }

    private mutating func change(_ index: Int) {
        if changed.insert(index).inserted { found.append(index) }
    }

    /// Notes that the refcounts of a run change.
    mutating func note(_ run: ClusterRun) {
        guard run.count > 0 else { return }
        for index in table.blockIndex(of: run.first)...table.blockIndex(of: run.end - 1) { change(index) }
    }

    /// Finds places for all blocks that change, and for the table.
    ///
    /// - Returns: The blocks' places, and the bytes of the new table, which the header is made to point to.
    mutating func plan(
        _ header: inout Header, _ allocator: inout ClusterAllocator, _ adjustments: inout RefcountAdjustments
    ) throws(QCOW2Error) -> (targets: [(index: Int, offset: HostOffset)], table: [UInt8]) {
        let oldTable = geometry.run(
            at: header.refcountTableOffset, byteCount: UInt64(header.refcountTableClusterCount) * geometry.clusterSize)
        if let oldTable {
            adjustments.add(oldTable, -1)
            note(oldTable)
        }
        var newTable = ClusterRun(first: 0, count: 0)
        while true {
            while placedCount < found.count {
                // All that are known by now next to each other; the few that follow from it, afterwards.
                let indices = found[placedCount...]
                placedCount = found.count
                let run = try allocator.allocate(UInt64(indices.count))
                adjustments.add(run, 1)
                note(run)
                for (position, index) in indices.enumerated() {
                    targets[index] = geometry.offset(ofCluster: run.first + UInt64(position))
                    guard let old = table.blockOffset(index) else { continue }
                    let oldRun = ClusterRun(first: geometry.cluster(at: old), count: 1)
                    adjustments.add(oldRun, -1)
                    note(oldRun)
                }
            }
            let entryCount = UInt64(max(table.blockOffsets.count, (changed.max() ?? 0) + 1))
            let needed = max(
                UInt64(header.refcountTableClusterCount), geometry.clusterCount(forBytes: entryCount * 8))
            if newTable.count >= needed { break }
            guard needed * geometry.clusterSize <= ImageGeometry.maximumRefcountTableByteCount else {
                throw QCOW2Error(.limitExceeded, "The refcount table would be larger than 8 MiB.")
            }
            if newTable.count > 0 { adjustments.add(newTable, -1) }
            newTable = try allocator.allocate(needed)
            adjustments.add(newTable, 1)
            note(newTable)
        }
        header.refcountTableOffset = geometry.offset(ofCluster: newTable.first)
        header.refcountTableClusterCount = UInt32(newTable.count)
        let sorted = targets.sorted { $0.key < $1.key }.map { (index: $0.key, offset: $0.value) }
        return (sorted, encodeTable(byteCount: newTable.count * geometry.clusterSize))
    }

    private func encodeTable(byteCount: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(byteCount))
        var span = bytes.mutableSpan
        for index in 0..<(span.count / RefcountTableEntry.byteCount) {
            let entry = RefcountTableEntry(block: targets[index] ?? table.blockOffset(index))
            span.storeBigEndian(entry.rawValue, at: index * RefcountTableEntry.byteCount)
        }
        return bytes
    }
}
