// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which tree reaches each of a range of clusters, if it is one alone.
///
/// One lane per cluster with a ``TreeOwner``'s number: telling clusters that belong to one of many thousands of trees
/// from clusters that several share takes one comparison per reference, whatever the number of trees.
struct OwnerWindow<Lane: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// The clusters that the window covers.
    private(set) var range: Range<UInt64>
    private var lanes: [Lane]

    /// A window with room for `capacity` clusters, at most.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    init(capacity: Int) {
        range = 0..<0
        lanes = [Lane](repeating: 0, count: capacity)
    }

    /// Whether lanes are wide enough for that many trees.
    static func fits(treeCount: Int) -> Bool { UInt64(treeCount + TreeOwner.treeBase) <= UInt64(Lane.max) }

    /// Forgets everything, and covers another range, at most as long as the capacity.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    mutating func reset(to range: Range<UInt64>) {
        for index in 0..<self.range.count { lanes[index] = 0 }
        self.range = range
    }

    /// Notes that a tree, or several, reach every cluster of a run that the window covers.
    @inline(__always)
    mutating func add(_ run: ClusterRun, _ owner: TreeOwner) {
        // Safe: the lanes were chosen so that every tree's number fits.
        let lane = Lane(truncatingIfNeeded: owner.rawValue)
        if run.count == 1 {
            let index = run.first &- range.lowerBound
            guard index < UInt64(range.count) else { return }
            let old = lanes[Int(truncatingIfNeeded: index)]
            lanes[Int(truncatingIfNeeded: index)] = Self.joined(old, lane)
            return
        }
        addMany(run, lane)
    }

    private mutating func addMany(_ run: ClusterRun, _ lane: Lane) {
        let first = max(run.first, range.lowerBound)
        let end = min(run.end, range.upperBound)
        guard first < end else { return }
        for index in Int(first - range.lowerBound)..<Int(end - range.lowerBound) {
            lanes[index] = Self.joined(lanes[index], lane)
        }
    }

    /// As ``TreeOwner/joined(with:)``, for an owner who isn't none.
    @inline(__always)
    private static func joined(_ old: Lane, _ lane: Lane) -> Lane {
        old == 0 || old == lane ? lane : Lane(truncatingIfNeeded: TreeOwner.several.rawValue)
    }

    /// Adds everything that an L2 table refers to.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that can't be.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    mutating func addTable(
        _ bytes: Span<UInt8>, at table: HostOffset, _ owner: TreeOwner, _ scan: L2TableScan
    ) throws(QCOW2Error) -> (findings: L2TableFindings, usage: L2TableUsage) {
        var findings = L2TableFindings()
        var usage = L2TableUsage()
        findings.flags = try scan.forEachTarget(in: bytes, at: table) { run, compressed in
            add(run, owner)
            findings.note(run)
            usage.note(run, compressed)
        }
        if usage.isUnordered { try usage.recount(bytes, at: table, scan) }
        return (findings, usage)
    }

    /// Adds every L2 table itself, and what those refer to whose runs are kept.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    mutating func addKnown(_ sweep: ReferenceSweep, _ owners: [TreeOwner]) {
        for index in 0..<sweep.tables.count {
            add(sweep.cluster(of: index), owners[index])
            guard sweep.contents[index].targets.overlaps(range) else { continue }
            for run in sweep.contents.keptRuns(of: index) ?? [] { add(run, owners[index]) }
        }
    }

    /// Adds single clusters, which are in ascending order.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    mutating func add(_ clusters: [UInt64], _ owner: TreeOwner) {
        for cluster in clusters.clusters(in: range) { add(ClusterRun(first: cluster, count: 1), owner) }
    }

    /// Adds up the clusters of a piece by who reaches them.
    ///
    /// - Parameters:
    ///   - refcounts: What is stored for the clusters from `first` on.
    ///   - count: How many clusters.
    ///   - first: The first cluster.
    ///   - counts: The sums so far, by the number of the owner.
    /// - Returns: How many clusters nobody reaches although they have a refcount.
    @specialized(where Lane == UInt8)
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    func tally(
        _ refcounts: [UInt64], count: Int, from first: UInt64, into counts: inout [UInt64]
    ) -> UInt64 {
        let base = Int(first - range.lowerBound)
        var leaked: UInt64 = 0
        for index in 0..<count {
            let lane = lanes[base &+ index]
            counts[Int(truncatingIfNeeded: lane)] &+= 1
            leaked &+= lane == 0 && refcounts[index] != 0 ? 1 : 0
        }
        return leaked
    }
}
