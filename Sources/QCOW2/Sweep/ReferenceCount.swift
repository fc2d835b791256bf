// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts every reference of an image before and after a proposed change: the sweep's client for everything that
/// writes.
///
/// Section "3.3 The multiplicity rule".
///
/// Checks on the way that the stored refcounts can be trusted, that nothing overlaps, and that no new refcount is too
/// large; finds the blocks that change, the clusters that are free, and the copied flags that change. An L2 table is
/// read once more if flags below it may differ from each other. Memory is bounded by the window, not by the image.
struct ReferenceCount<Lane: FixedWidthInteger & UnsignedInteger & Sendable> {
    let state: ImageState
    private(set) var sweep: ReferenceSweep
    private(set) var window = CountWindow<Lane>(capacity: 0)
    private(set) var blocks: BlockSurvey
    private(set) var flags: FlagSurvey
    private var windows: ClusterWindows
    private let budget: Int
    /// Whether the bitmaps' clusters are referred to no more in the new state.
    private let dropsBitmaps: Bool

    private var geometry: ImageGeometry { state.geometry }

    init(_ state: ImageState, _ l2Tables: L2Tables, budget: Int, dropsBitmaps: Bool = false) {
        self.init(
            state, ReferenceSweep(l2Tables, in: state.geometry, fileByteCount: state.fileByteCount), budget: budget,
            dropsBitmaps: dropsBitmaps)
    }

    init(_ state: ImageState, _ sweep: ReferenceSweep, budget: Int, dropsBitmaps: Bool) {
        self.state = state
        self.sweep = sweep
        self.budget = budget
        self.dropsBitmaps = dropsBitmaps
        windows = ClusterWindows(OccupiedClusters(), laneByteCount: Lane.bitWidth / 8, budget: budget)
        blocks = BlockSurvey(state.refcounts)
        flags = FlagSurvey(state, sweep.tables)
    }

    /// Counts.
    ///
    /// - Returns: Whether the lanes were wide enough; if not, count with wider ones.
    mutating func count<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Bool {
        try flags.findRefcounts(of: sweep.tables, storage, &work)
        work.expect(UInt64(sweep.tables.count) * geometry.clusterSize)
        // Of the clusters of the file, and those that a block describes.
        let clusterCount = max(
            geometry.clusterCount(forBytes: state.fileByteCount), state.refcounts.describedClusterCount)
        let occupied = OccupiedClusters(state, sweep.tables, upTo: clusterCount)
        try refuseStrays(outside: occupied, upTo: clusterCount, storage, &work)
        windows = ClusterWindows(occupied, laneByteCount: Lane.bitWidth / 8, budget: budget)
        window = CountWindow(capacity: windows.capacity)
        var last: UInt64 = 0
        for range in windows.ranges {
            blocks.noteFree(last..<range.lowerBound)
            last = range.upperBound
            window.reset(to: range)
            guard try countReferences(storage, &work) else { return false }
            try checkTables()
            try blocks.settle(&window, state, storage, &work)
            try flags.survey(&sweep, window, storage, &work)
        }
        flags.finish(sweep)
        return true
    }

    /// Gives the memory back, before wider lanes take its place.
    mutating func discard() { window = CountWindow(capacity: 0) }

    /// Refuses an image with a reference to a cluster that has no refcount, far from everything else.
    private mutating func refuseStrays<S: Storage & ~Copyable>(
        outside occupied: OccupiedClusters, upTo clusterCount: UInt64, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var reached = occupied
        guard try sweep.findStrays(outside: &reached, upTo: clusterCount, reading: storage, &work) else { return }
        reached.finish(upTo: clusterCount)
        let stray = reached.ranges.first { !occupied.contains($0) }?.lowerBound ?? 0
        throw .untrusted(0, 1, at: geometry.offset(ofCluster: stray))
    }

    /// Adds all references to the window.
    private mutating func countReferences<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter, where isWanted: (L2Table) -> Bool = { _ in true }
    ) throws(QCOW2Error) -> Bool {
        var window = CountWindow<Lane>(capacity: 0)
        swap(&window, &self.window)
        defer { swap(&window, &self.window) }
        guard let kept = CountWindow<Lane>.weight(old: 1, new: 1),
            let bitmap = CountWindow<Lane>.weight(old: 1, new: dropsBitmaps ? 0 : 1)
        else { return false }
        for table in state.tables { window.add(table.run, table.kind.isBitmap ? bitmap : kept) }
        window.add(state.singles.refcountBlocks, kept)
        window.add(state.singles.bitmapData, bitmap)
        guard try sweep.cover(&window, reading: storage, &work, where: isWanted) else { return false }
        return !window.hasOverflowed
    }

    /// Checks that nothing but itself is in a table.
    ///
    /// Invariant I-9.
    private func checkTables() throws(QCOW2Error) {
        func check(_ run: ClusterRun, _ name: @autoclosure () -> String) throws(QCOW2Error) {
            for cluster in (run.first..<run.end).clamped(to: window.range) where window.old(cluster) != 1 {
                throw QCOW2Error(
                    .corrupt, "Something else refers to a cluster of the \(name()).",
                    at: geometry.offset(ofCluster: cluster))
            }
        }
        for table in state.tables { try check(table.run, table.name) }
        for cluster in state.singles.refcountBlocks.clusters(in: window.range) {
            try check(ClusterRun(first: cluster, count: 1), MetadataTables.Table.Kind.refcountBlock.rawValue)
        }
        for cluster in state.singles.bitmapData.clusters(in: window.range) {
            try check(ClusterRun(first: cluster, count: 1), MetadataTables.Table.Kind.bitmapData.rawValue)
        }
        for index in 0..<sweep.tables.count {
            let cluster = sweep.cluster(of: index).first
            guard window.covers(cluster), window.old(cluster) != UInt64(sweep.tables[index].oldWeight) else { continue }
            throw QCOW2Error(
                .corrupt, "Something else refers to an L2 table.", at: sweep.tables[index].offset)
        }
    }
}

/// How the references to clusters change, without what they were counted with.
protocol ReferenceChanges: Sendable {
    /// Adds the changes to the refcounts of a piece of clusters; counts again if the last window doesn't cover them.
    mutating func addChanges<S: Storage & ~Copyable>(
        to refcounts: inout [UInt64], of piece: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error)
}

extension ReferenceCount: ReferenceChanges {
    mutating func addChanges<S: Storage & ~Copyable>(
        to refcounts: inout [UInt64], of piece: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        // What lies in no window has no references that the file knows of.
        guard let range = windows.range(of: piece.lowerBound) else { return }
        if range != window.range {
            window.reset(to: range)
            _ = try countReferences(storage, &work) { $0.oldWeight != $0.newWeight }
        }
        let count = min(piece.upperBound, range.upperBound) - piece.lowerBound
        window.applyChanges(to: &refcounts, count: Int(count), from: piece.lowerBound)
    }
}
