// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Finds who reaches each cluster of an image, a window of clusters at a time: the sweep's client for usage.
///
/// Believes references rather than refcounts, so that an image whose refcounts are wrong has a usage, too.
struct OwnerCount<Lane: FixedWidthInteger & UnsignedInteger & Sendable> {
    private let state: ImageState
    private(set) var sweep: ReferenceSweep
    /// By the L2 table's index, the trees that reach it.
    private let owners: [TreeOwner]
    /// By the L2 table's index.
    private(set) var tableUsages: [L2TableUsage]
    /// How many clusters of the file each ``TreeOwner`` has, by its number.
    private(set) var clusterCounts: [UInt64]
    /// Clusters of the file that nothing refers to although they have a refcount.
    private(set) var leakedCount: UInt64 = 0
    private let budget: Int
    private var window = OwnerWindow<Lane>(capacity: 0)

    init(_ state: ImageState, _ sweep: ReferenceSweep, _ owners: [TreeOwner], budget: Int) {
        self.state = state
        self.sweep = sweep
        self.owners = owners
        self.budget = budget
        tableUsages = [L2TableUsage](repeating: L2TableUsage(), count: sweep.tables.count)
        clusterCounts = [UInt64](repeating: 0, count: state.treeCount + TreeOwner.treeBase)
    }

    mutating func count<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        work.expect(UInt64(sweep.tables.count) &* state.geometry.clusterSize)
        let fileClusterCount = state.geometry.clusterCount(forBytes: state.fileByteCount)
        var occupied = OccupiedClusters(state, sweep.tables, upTo: fileClusterCount)
        if try sweep.findStrays(outside: &occupied, upTo: fileClusterCount, reading: storage, &work) {
            occupied.finish(upTo: fileClusterCount)
        }
        let windows = ClusterWindows(occupied, laneByteCount: Lane.bitWidth / 8, budget: budget)
        window = OwnerWindow(capacity: windows.capacity)
        var refcounts = RefcountReader(state.refcounts, readsAhead: true)
        var last: UInt64 = 0
        for range in windows.ranges {
            // Nobody reaches what is in no window, and it has no refcount.
            clusterCounts[Int(TreeOwner.none.rawValue)] &+= range.lowerBound - last
            last = range.upperBound
            window.reset(to: range)
            for table in state.tables { window.add(table.run, .image) }
            window.add(state.singles.refcountBlocks, .image)
            window.add(state.singles.bitmapData, .image)
            try addReferences(storage, &work)
            var first = range.lowerBound
            while first < range.upperBound {
                let piece = refcounts.piece(from: first, upTo: range.upperBound)
                try refcounts.read(piece, from: storage)
                leakedCount &+= window.tally(refcounts.values, count: piece.count, from: first, into: &clusterCounts)
                first = piece.upperBound
                try work.checkForWish()
            }
        }
        clusterCounts[Int(TreeOwner.none.rawValue)] &+= fileClusterCount - last
    }

    private mutating func addReferences<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var client = Client(window: OwnerWindow(capacity: 0), owners: owners, usages: [])
        swap(&client.window, &window)
        swap(&client.usages, &tableUsages)
        defer {
            swap(&client.window, &window)
            swap(&client.usages, &tableUsages)
        }
        _ = try sweep.cover(&client, reading: storage, &work)
    }

    private struct Client: SweepClient {
        var window: OwnerWindow<Lane>
        let owners: [TreeOwner]
        var usages: [L2TableUsage]

        var range: Range<UInt64> { window.range }

        mutating func addKnown(_ sweep: ReferenceSweep) -> Bool {
            window.addKnown(sweep, owners)
            return true
        }

        mutating func add(
            _ index: Int, _ bytes: Span<UInt8>, isFirst: Bool, _ sweep: ReferenceSweep
        ) throws(QCOW2Error) -> L2TableFindings {
            let found = try window.addTable(bytes, at: sweep.tables[index].offset, owners[index], sweep.scan)
            if isFirst { usages[index] = found.usage }
            return found.findings
        }
    }
}
