// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Finds who reaches each cluster of an image, a window of clusters at a time.
///
/// Reads every distinct L2 table once, whatever the number of trees it is part of; again for a further window only if
/// its runs were too many to remember and some lie there. Believes references rather than refcounts, so that an image
/// whose refcounts are wrong has a usage, too.
struct OwnerCount<Lane: FixedWidthInteger & UnsignedInteger & Sendable> {
    private let state: ImageState
    private(set) var l2Tables: L2Tables
    /// By the table's index.
    private(set) var tableUsages: [L2TableUsage]
    /// How many clusters of the file each ``TreeOwner`` has, by its number.
    private(set) var clusterCounts: [UInt64]
    /// Clusters of the file that nothing refers to although they have a refcount.
    private(set) var leakedCount: UInt64 = 0
    private let windows: ClusterWindows
    private var window: OwnerWindow<Lane>
    private var reader: L2TableReader
    private let scan: L2TableScan

    init(_ state: ImageState, _ l2Tables: L2Tables, budget: Int) {
        self.state = state
        self.l2Tables = l2Tables
        tableUsages = [L2TableUsage](repeating: L2TableUsage(), count: l2Tables.count)
        clusterCounts = [UInt64](repeating: 0, count: state.treeCount + TreeOwner.treeBase)
        windows = ClusterWindows(
            clusterCount: state.geometry.clusterCount(forBytes: state.fileByteCount),
            laneByteCount: Lane.bitWidth / 8, budget: budget)
        window = OwnerWindow(capacity: windows.capacity)
        reader = L2TableReader(state.geometry)
        scan = L2TableScan(geometry: state.geometry, fileByteCount: state.fileByteCount)
    }

    mutating func count<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        work.expect(UInt64(l2Tables.count) &* state.geometry.clusterSize)
        var refcounts = RefcountReader(state.refcounts, readsAhead: true)
        for index in 0..<windows.count {
            window.reset(to: windows.range(index))
            try addReferences(storage, &work, isFirst: index == 0)
            var first = window.range.lowerBound
            while first < window.range.upperBound {
                let piece = refcounts.piece(from: first, upTo: window.range.upperBound)
                try refcounts.read(piece, from: storage)
                leakedCount &+= window.tally(refcounts.values, count: piece.count, from: first, into: &clusterCounts)
                first = piece.upperBound
            }
        }
    }

    private mutating func addReferences<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter, isFirst: Bool
    ) throws(QCOW2Error) {
        var window = OwnerWindow<Lane>(capacity: 0)
        var usages: [L2TableUsage] = []
        swap(&window, &self.window)
        swap(&usages, &tableUsages)
        defer {
            swap(&window, &self.window)
            swap(&usages, &tableUsages)
        }
        for table in state.tables { window.add(table.run, table.owner) }
        for index in 0..<l2Tables.count {
            let table = l2Tables[index]
            window.add(ClusterRun(first: state.geometry.cluster(at: table.offset), count: 1), table.owner)
            for run in l2Tables.keptRuns(of: table) ?? [] { window.add(run, table.owner) }
        }
        let (range, scan) = (window.range, scan)
        try reader.forEach(
            of: &l2Tables, from: storage, &work,
            where: { table, _ in isFirst || (table.runs == nil && table.targets.overlaps(range)) }
        ) { (l2Tables, index, bytes) throws(QCOW2Error) in
            let table = l2Tables[index]
            let found = try window.addTable(bytes, at: table.offset, table.owner, scan)
            guard isFirst else { return }
            l2Tables.note(found.findings, of: index)
            usages[index] = found.usage
        }
    }
}
