// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The references to each of a range of clusters, beside whether the stored refcount is one.
///
/// One lane per cluster: references in the lower bits, and in the highest whether the refcount in the file is one,
/// which is all that copied flags depend on. So one pass over the L2 tables, with one access to memory per cluster,
/// counts and compares the flags.
///
/// Narrow lanes are fast and small, and enough for nearly all images; ``hasOverflowed`` says when they weren't.
struct CheckWindow<Lane: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// The clusters that the window covers.
    let range: Range<UInt64>
    private var lanes: [Lane]
    /// All lanes' bits, as far as they were ever set.
    private var seen: Lane = 0
    /// Whether something was added to a cluster that was referred to already.
    private(set) var collides = false

    private static var topShift: Lane { Lane(Lane.bitWidth - 1) }
    private static var countMask: Lane { Lane.max >> 1 }
    /// What a single addition must stay below, so that an overflow is seen before it does harm.
    private static var weightLimit: UInt64 { 1 << UInt64(Lane.bitWidth - 3) }

    /// A window over nothing but unused clusters.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    init(_ range: Range<UInt64>) {
        self.range = range
        lanes = [Lane](repeating: 0, count: Int(range.count))
    }

    /// Whether some cluster has more references than a lane can count.
    var hasOverflowed: Bool { seen & (Lane(1) << (Self.topShift - 1)) != 0 }

    /// What to add for a number of references; `nil` if lanes are too narrow for it.
    static func weight(_ count: UInt64) -> Lane? { count < weightLimit ? Lane(count) : nil }

    /// Notes which of neighbouring clusters have a stored refcount of one.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func load(_ stored: [UInt64], count: Int, from first: UInt64) {
        let base = Int(first - range.lowerBound)
        for index in 0..<count {
            lanes[base &+ index] = (stored[index] == 1 ? 1 : 0) << Self.topShift
        }
    }

    /// Notes which of neighbouring clusters will have a refcount of one, and keeps the references.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func loadOnes(_ refcounts: [UInt64], of piece: Range<UInt64>) {
        guard piece.lowerBound >= range.lowerBound, piece.upperBound <= range.upperBound else { return }
        let base = Int(piece.lowerBound - range.lowerBound)
        for index in 0..<piece.count {
            lanes[base + index] =
                lanes[base + index] & Self.countMask | (refcounts[index] == 1 ? 1 : 0) << Self.topShift
        }
    }

    /// Takes a reference away from a cluster, if the window covers it.
    mutating func removeReference(to cluster: UInt64) {
        guard covers(cluster), count(cluster) > 0 else { return }
        let index = Int(cluster - range.lowerBound)
        let count = (lanes[index] & Self.countMask) - 1
        lanes[index] = count | (count == 1 ? 1 : 0) << Self.topShift
    }

    /// Adds to every cluster of a run that the window covers, without looking at flags or collisions.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func add(_ run: ClusterRun, _ weight: Lane) {
        guard let part = part(of: run) else { return }
        var bits: Lane = 0
        for index in part {
            let sum = lanes[index] &+ weight
            lanes[index] = sum
            bits |= sum
        }
        seen |= bits
    }

    private func part(of run: ClusterRun) -> Range<Int>? {
        let first = max(run.first, range.lowerBound)
        let end = min(run.end, range.upperBound)
        return first < end ? Int(first - range.lowerBound)..<Int(end - range.lowerBound) : nil
    }

    /// Adds to every cluster of a run of data.
    ///
    /// - Returns: 1 if some stored refcount is one where `flag` is 0, or isn't where it is 1; else 0.
    @inline(__always)
    mutating func addData(_ run: ClusterRun, _ weight: Lane, flag: Lane) -> Lane {
        // One cluster, the usual case in scattered images, needs no loop.
        if run.count == 1 {
            let index = run.first &- range.lowerBound
            guard index < UInt64(range.count) else { return 0 }
            let lane = lanes[Int(truncatingIfNeeded: index)]
            if lane & Self.countMask != 0 { collides = true }
            let sum = lane &+ weight
            lanes[Int(truncatingIfNeeded: index)] = sum
            seen |= sum
            return (lane >> Self.topShift) ^ flag
        }
        return addMany(run, weight, flag)
    }

    private mutating func addMany(_ run: ClusterRun, _ weight: Lane, _ flag: Lane) -> Lane {
        guard let part = part(of: run) else { return 0 }
        var (any, all, sums): (Lane, Lane, Lane) = (0, .max, 0)
        for index in part {
            let lane = lanes[index]
            any |= lane
            all &= lane
            let sum = lane &+ weight
            lanes[index] = sum
            sums |= sum
        }
        seen |= sums
        if any & Self.countMask != 0 { collides = true }
        return flag == 1 ? (all >> Self.topShift) ^ 1 : any >> Self.topShift
    }

    /// Adds everything that an L2 table refers to.
    ///
    /// - Parameters:
    ///   - bytes: The table.
    ///   - weight: What to add.
    ///   - scan: How its entries are read.
    ///   - odd: Says what an entry that isn't plain refers to, and whether it carries a copied flag.
    /// - Returns: What was found.
    /// - Throws: What `odd` throws.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func addTable(
        _ bytes: Span<UInt8>, _ weight: Lane, _ scan: L2TableScan,
        odd: (_ entry: L2Entry, _ position: Int) throws(QCOW2Error) -> L2EntryTarget
    ) throws(QCOW2Error) -> CheckedTable {
        var findings = L2TableFindings()
        var statistics = MappingStatistics()
        var mismatch: Lane = 0
        findings.flags = try scan.forEachRun(in: bytes, splitting: true) { run, entry, _ in
            mismatch |= addData(run, weight, flag: Lane(truncatingIfNeeded: entry >> 63))
            findings.note(run)
            statistics.note(run)
        } odd: { (entry, position, flags) throws(QCOW2Error) in
            let target = try odd(entry, position)
            if target.isAllocated { statistics.note(target) }
            guard let run = target.run else { return }
            if target.carriesFlag {
                flags.note(entry.rawValue)
                mismatch |= addData(run, weight, flag: Lane(truncatingIfNeeded: entry.rawValue >> 63))
            } else {
                add(run, weight)
                findings.forgetRuns()
            }
            findings.note(run)
        }
        // Runs alone don't say which of them carry the flag.
        if findings.flags.isAnySet, findings.flags.isAnyClear { findings.forgetRuns() }
        return CheckedTable(findings: findings, statistics: statistics, hasWrongFlag: mismatch != 0)
    }

    /// Adds runs that an L2 table was found to refer to, all with the same copied flag.
    ///
    /// - Returns: Whether the flag is wrong somewhere.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func addRuns(_ runs: ArraySlice<ClusterRun>, _ weight: Lane, flag: Bool) -> Bool {
        var mismatch: Lane = 0
        for run in runs { mismatch |= addData(run, weight, flag: flag ? 1 : 0) }
        return mismatch != 0
    }

    /// Adds every L2 table itself.
    ///
    /// - Returns: Whether all weights fit into a lane.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func addTables(_ sweep: ReferenceSweep, onlyNew: Bool) -> Bool {
        for index in 0..<sweep.tables.count {
            let table = sweep.tables[index]
            guard let weight = Self.weight(UInt64(onlyNew ? table.newWeight : table.oldWeight)) else { return false }
            add(sweep.cluster(of: index), weight)
        }
        return !hasOverflowed
    }

    /// Adds single clusters, which are in ascending order.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func add(_ clusters: [UInt64], _ weight: Lane) {
        for cluster in clusters.clusters(in: range) { add(ClusterRun(first: cluster, count: 1), weight) }
    }

    /// Compares neighbouring clusters' references with their stored refcounts.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    func compare(_ stored: [UInt64], count: Int, from first: UInt64) -> (differ: Bool, anyUsed: Bool) {
        let base = Int(first - range.lowerBound)
        var (difference, used): (UInt64, UInt64) = (0, 0)
        for index in 0..<count {
            let references = UInt64(truncatingIfNeeded: lanes[base &+ index] & Self.countMask)
            difference |= references ^ stored[index]
            used |= references | stored[index]
        }
        return (difference != 0, used != 0)
    }

    func covers(_ cluster: UInt64) -> Bool { range.contains(cluster) }

    /// The references to a cluster.
    func count(_ cluster: UInt64) -> UInt64 {
        UInt64(truncatingIfNeeded: lanes[Int(cluster - range.lowerBound)] & Self.countMask)
    }

    /// Whether a cluster's stored refcount is one.
    func isOne(_ cluster: UInt64) -> Bool { lanes[Int(cluster - range.lowerBound)] >> Self.topShift == 1 }
}

/// What an L2 table turned out to hold.
struct CheckedTable {
    let findings: L2TableFindings
    let statistics: MappingStatistics
    /// Whether some copied flag contradicts the stored refcounts, as far as the window covers the clusters.
    let hasWrongFlag: Bool
}

/// How guest clusters are laid out in the file.
struct MappingStatistics: Hashable, Sendable {
    var allocatedCount: UInt64 = 0
    var fragmentedCount: UInt64 = 0
    var compressedCount: UInt64 = 0
    /// Where the next cluster would have to be; zero for anywhere.
    private var next: UInt64 = 0

    @inline(__always)
    mutating func note(_ run: ClusterRun) {
        allocatedCount &+= run.count
        if next != 0, run.first != next { fragmentedCount &+= 1 }
        next = run.end
    }

    mutating func note(_ target: L2EntryTarget) {
        if target.isCompressed {
            allocatedCount += 1
            compressedCount += 1
            fragmentedCount += 1
        } else if let run = target.run {
            note(ClusterRun(first: run.first, count: 1))
        } else {
            allocatedCount += 1
        }
    }

    /// Adds a table's statistics, as often as the active L1 table refers to it.
    mutating func add(_ other: MappingStatistics, times: UInt64) {
        allocatedCount &+= other.allocatedCount &* times
        fragmentedCount &+= other.fragmentedCount &* times
        compressedCount &+= other.compressedCount &* times
    }
}
