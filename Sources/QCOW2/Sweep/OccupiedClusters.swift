// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The parts of a file in which clusters may have a refcount or a reference, in pieces of 32,768 clusters.
///
/// A sparse file can be of any length, and a refcount table can describe far more clusters than exist. What keeps the
/// work in proportion to the bytes that are really there is that only these parts are looked at.
struct OccupiedClusters: Sendable {
    /// Ranges of clusters in ascending order, which don't touch each other.
    private(set) var ranges: [Range<UInt64>] = []
    private var pending: [Range<UInt64>] = []

    private static let pieceCount = UInt64(RefcountReader.pieceCount)

    /// A range of clusters.
    init(_ range: Range<UInt64>) { if !range.isEmpty { ranges = [range] } }

    /// No cluster yet.
    init() {}

    /// Adds the pieces that clusters lie in, once ``finish(upTo:)`` has been called.
    mutating func add(_ clusters: Range<UInt64>) {
        guard !clusters.isEmpty else { return }
        let first = clusters.lowerBound / Self.pieceCount * Self.pieceCount
        let last = clusters.upperBound.addingReportingOverflow(Self.pieceCount - 1)
        let end = last.overflow ? clusters.upperBound : last.partialValue / Self.pieceCount * Self.pieceCount
        if let known = pending.last, known.lowerBound <= first, first <= known.upperBound {
            pending[pending.count - 1] = known.lowerBound..<max(known.upperBound, end)
        } else {
            pending.append(first..<end)
        }
        if pending.count >= max(1 << 16, ranges.count) { merge() }
    }

    mutating func add(_ other: OccupiedClusters) { pending += other.ranges + other.pending }

    mutating func add(_ run: ClusterRun) { add(run.first..<run.end) }

    /// Puts all that was added in order, and leaves out what lies behind a cluster.
    mutating func finish(upTo end: UInt64) {
        merge()
        while let last = ranges.last, last.upperBound > end {
            ranges.removeLast()
            if last.lowerBound < end { ranges.append(last.lowerBound..<end) }
        }
        assert(ranges.areAscendingAndDisjoint && ranges.allSatisfy { $0.upperBound <= end })
    }

    private mutating func merge() {
        var all = ranges + pending
        pending.removeAll(keepingCapacity: true)
        all.sort { $0.lowerBound < $1.lowerBound }
        ranges.removeAll(keepingCapacity: true)
        for range in all {
            if let last = ranges.last, range.lowerBound <= last.upperBound {
                ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                ranges.append(range)
            }
        }
    }

    /// Whether all clusters of a range are in one of the parts.
    func contains(_ clusters: Range<UInt64>) -> Bool {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound <= clusters.lowerBound { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].lowerBound <= clusters.lowerBound
            && clusters.upperBound <= ranges[low].upperBound
    }
}

extension OccupiedClusters {
    /// Up to so many clusters it costs less to look at all of them than to find out which to look at.
    private static let denseCount: UInt64 = 1 << 25

    /// The parts of an image's file that have a refcount, metadata, or an L2 table.
    ///
    /// What L2 tables refer to may lie elsewhere: ``ReferenceSweep/findStrays(outside:upTo:reading:_:)``.
    init(_ state: ImageState, _ l2Tables: L2Tables, upTo clusterCount: UInt64) {
        self.init(state.refcounts, state.tables, state.singles, l2Tables, upTo: clusterCount)
    }

    init(
        _ refcounts: RefcountTable, _ tables: [MetadataTables.Table], _ singles: SingleClusters, _ l2Tables: L2Tables,
        upTo clusterCount: UInt64
    ) {
        self.init()
        guard clusterCount > Self.denseCount else {
            add(0..<clusterCount)
            finish(upTo: clusterCount)
            return
        }
        let geometry = refcounts.geometry
        for index in refcounts.blockOffsets.indices where refcounts.hasData(index) {
            let first = UInt64(index) * geometry.refcountsPerBlock
            add(first..<(first + geometry.refcountsPerBlock))
        }
        for table in tables { add(table.run) }
        for cluster in singles.refcountBlocks { add(cluster..<(cluster + 1)) }
        for cluster in singles.bitmapData { add(cluster..<(cluster + 1)) }
        for index in 0..<l2Tables.count {
            let cluster = geometry.cluster(at: l2Tables[index].offset)
            add(cluster..<(cluster + 1))
        }
        finish(upTo: clusterCount)
    }
}
