// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Plans the refcount blocks and the refcount table of the new state.
///
/// Section "6.3 Commit method A", fix point.
///
/// Every block whose counts change is written anew; a new block is itself a cluster whose count changes, and perhaps
/// in another block, so this goes on until no block is left. Growth of the table is the same: a longer one is taken.
struct RefcountPlanner {
    let state: ImageState
    /// Where the changed blocks go, by their index in the refcount table.
    private var targets: [Int: HostOffset] = [:]

    private var geometry: ImageGeometry { state.geometry }

    init(state: ImageState) { self.state = state }

    mutating func plan(
        _ header: inout Header, _ count: inout ReferenceCount, _ allocator: inout ClusterAllocator,
        _ preparations: inout [MetadataUpdate.Preparation]
    ) throws(QCOW2Error) {
        let tableClusters = geometry.run(
            at: header.refcountTableOffset, byteCount: UInt64(header.refcountTableClusterCount) * geometry.clusterSize)
        // Blocks that don't change stay where they are.
        for offset in state.refcounts.blockOffsets {
            if let offset { count.new.set(ClusterRun(first: geometry.cluster(at: offset), count: 1), to: 1) }
        }
        var changed = changedBlocks(count)
        if let tableClusters { changed.formUnion(blockIndices(of: tableClusters)) }
        var table = ClusterRun(first: 0, count: 0)
        while true {
            // ORDER of the search doesn't matter, but a fixed one makes equal images from equal images.
            let missing = changed.filter { targets[$0] == nil }.sorted()
            for index in missing {
                let run = try allocator.allocate(1, unusedIn: count.new)
                count.new.set(run, to: 1)
                targets[index] = geometry.offset(ofCluster: run.first)
                changed.formUnion(blockIndices(of: run))
                guard let old = state.refcounts.blockOffset(index) else { continue }
                let oldRun = ClusterRun(first: geometry.cluster(at: old), count: 1)
                count.new.set(oldRun, to: 0)
                changed.formUnion(blockIndices(of: oldRun))
            }
            let entryCount = UInt64(max(state.refcounts.blockOffsets.count, (changed.max() ?? 0) + 1))
            let needed = max(
                UInt64(header.refcountTableClusterCount), geometry.clusterCount(forBytes: entryCount * 8))
            if table.count < needed {
                if table.count > 0 { count.new.set(table, to: 0) }
                table = try allocator.allocate(needed, unusedIn: count.new)
                count.new.set(table, to: 1)
                changed.formUnion(blockIndices(of: table))
            }
            if changed.allSatisfy({ targets[$0] != nil }) { break }
        }
        guard table.count * geometry.clusterSize <= ImageGeometry.maximumRefcountTableByteCount else {
            throw QCOW2Error(.limitExceeded, "The refcount table would be larger than 8 MiB.")
        }
        header.refcountTableOffset = geometry.offset(ofCluster: table.first)
        header.refcountTableClusterCount = UInt32(table.count)
        for (index, target) in targets.sorted(by: { $0.key < $1.key }) {
            preparations.append(.table(try newBlock(index, count).bytes, at: target))
        }
        preparations.append(
            .table(encodeTable(byteCount: table.count * geometry.clusterSize), at: header.refcountTableOffset))
    }

    private func blockIndices(of run: ClusterRun) -> ClosedRange<Int> {
        state.refcounts.blockIndex(of: run.first)...state.refcounts.blockIndex(of: run.end - 1)
    }

    /// The blocks with a count that changes.
    private func changedBlocks(_ count: ReferenceCount) -> Set<Int> {
        var changed: Set<Int> = []
        forEachChange(in: count) { cluster, _, _ in changed.insert(state.refcounts.blockIndex(of: cluster)) }
        return changed
    }

    /// Calls `body` with every cluster whose number of references changes.
    private func forEachChange(in count: ReferenceCount, _ body: (UInt64, _ old: UInt32, _ new: UInt32) -> Void) {
        for page in 0..<max(count.old.pages.count, count.new.pages.count) {
            let base = UInt64(page) << ClusterCounts.pageBits
            let old = page < count.old.pages.count ? count.old.pages[page] : []
            let new = page < count.new.pages.count ? count.new.pages[page] : []
            guard !old.isEmpty || !new.isEmpty, old != new else { continue }
            for index in 0..<ClusterCounts.pageCount {
                let (before, after) = (old.isEmpty ? 0 : old[index], new.isEmpty ? 0 : new[index])
                if before != after { body(base + UInt64(index), before, after) }
            }
        }
    }

    /// The block at an index as it will be.
    private func newBlock(_ index: Int, _ count: ReferenceCount) throws(QCOW2Error) -> RefcountBlock {
        var block = state.refcounts.block(index) ?? RefcountBlock(freeIn: geometry)
        let first = UInt64(index) * geometry.refcountsPerBlock
        var overflowing: UInt64?
        for entry in 0..<block.count {
            let cluster = first + UInt64(entry)
            let (before, after) = (UInt64(count.old[cluster]), UInt64(count.new[cluster]))
            guard before != after else { continue }
            // Safe: the stored refcount was checked to be at least the old references.
            let (value, overflow) = (block[entry] - before).addingReportingOverflow(after)
            if overflow || value > geometry.maximumRefcount { overflowing = overflowing ?? cluster }
            block[entry] = value
        }
        if let overflowing {
            throw QCOW2Error(
                .limitExceeded,
                "A cluster would have more than \(geometry.maximumRefcount) references, the most that "
                    + "\(geometry.refcountBits)-bit refcounts can count; delete snapshots first.",
                at: geometry.offset(ofCluster: overflowing))
        }
        return block
    }

    private func encodeTable(byteCount: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(byteCount))
        var span = bytes.mutableSpan
        for index in 0..<(span.count / RefcountTableEntry.byteCount) {
            let entry = RefcountTableEntry(block: targets[index] ?? state.refcounts.blockOffset(index))
            span.storeBigEndian(entry.rawValue, at: index * RefcountTableEntry.byteCount)
        }
        return bytes
    }

    /// The clusters that only the old state uses, and the length of the file without free clusters at its end.
    func freedRuns(_ count: ReferenceCount) -> (freed: [ClusterRun], fileByteCount: UInt64) {
        var freed: [ClusterRun] = []
        forEachChange(in: count) { cluster, old, new in
            guard new == 0, state.refcounts[cluster] == UInt64(old) else { return }
            if let last = freed.last, last.end == cluster {
                freed[freed.count - 1].count += 1
            } else {
                freed.append(ClusterRun(first: cluster, count: 1))
            }
        }
        let written = UInt64(count.new.pages.count) << ClusterCounts.pageBits
        let fileClusters = geometry.clusterCount(forBytes: state.fileByteCount)
        var end = max(written, min(fileClusters, state.refcounts.describedClusterCount))
        while end > 1, count.new[end - 1] == 0, state.refcounts[end - 1] == UInt64(count.old[end - 1]) { end -= 1 }
        return (freed, end * geometry.clusterSize)
    }
}
