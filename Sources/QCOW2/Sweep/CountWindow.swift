// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The references to each of a range of clusters, and how an operation changes them.
///
/// One lane per cluster: the references in the file as it is in the low half, the change as a signed number in the
/// high half. So adding a run of clusters is one addition per cluster, in a loop that the compiler turns into vector
/// instructions, and costs one access to memory however scattered the clusters are.
///
/// Narrow lanes are fast and small, and enough for nearly all images; ``hasOverflowed`` says when they weren't.
struct CountWindow<Lane: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// The clusters that the window covers.
    private(set) var range: Range<UInt64>
    private var lanes: [Lane]
    /// All lanes' bits, as far as they were ever set.
    private var seen: Lane = 0

    /// The largest number of references in the file, and of weights, that can't run into the other half of a lane.
    ///
    /// A tree of the old state becomes at most three trees of the new one, so a change has room for the rest.
    static var limit: UInt32 { UInt32(truncatingIfNeeded: Lane(1) << Lane(Lane.bitWidth / 2 - 3)) }
    private static var halfBits: Lane { Lane(Lane.bitWidth / 2) }
    private static var lowHalf: Lane { Lane.max >> halfBits }
    /// The low half's top bit, which no number of references below the limit reaches: once a lane is settled, whether
    /// the new refcount is one.
    private static var isOneBit: Lane { 1 << isOneShift }
    private static var isOneShift: Lane { halfBits - 1 }
    private static var referencesMask: Lane { lowHalf >> 1 }

    /// A window with room for `capacity` clusters, at most.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    init(capacity: Int) {
        range = 0..<0
        lanes = [Lane](repeating: 0, count: capacity)
    }

    /// The most clusters that the window can cover.
    var capacity: Int { lanes.count }

    /// Forgets everything, and covers another range, at most as long as the capacity.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func reset(to range: Range<UInt64>) {
        let used = Int(self.range.count)
        for index in 0..<used { lanes[index] = 0 }
        self.range = range
        seen = 0
    }

    /// Whether some cluster has more references than a lane can count.
    var hasOverflowed: Bool { seen & (Self.lowHalf ^ (Lane(Self.limit) - 1)) != 0 }

    /// What to add for references that the file has `old` times and will have `new` times; `nil` if too many.
    static func weight(old: UInt32, new: UInt32) -> Lane? {
        guard old < limit, new < limit else { return nil }
        let change = Lane(truncatingIfNeeded: Int64(new) - Int64(old))
        return (change << halfBits) &+ Lane(truncatingIfNeeded: old)
    }

    /// Adds a weight to every cluster of a run that the window covers.
    @inline(__always)
    mutating func add(_ run: ClusterRun, _ weight: Lane) {
        // One cluster, the usual case in scattered images, needs no loop.
        if run.count == 1 {
            let index = run.first &- range.lowerBound
            guard index < UInt64(range.count) else { return }
            let sum = lanes[Int(truncatingIfNeeded: index)] &+ weight
            lanes[Int(truncatingIfNeeded: index)] = sum
            seen |= sum
            return
        }
        addMany(run, weight)
    }

    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    private mutating func addMany(_ run: ClusterRun, _ weight: Lane) {
        let first = max(run.first, range.lowerBound)
        let end = min(run.end, range.upperBound)
        guard first < end else { return }
        let part = Int(first - range.lowerBound)..<Int(end - range.lowerBound)
        var bits: Lane = 0
        for index in part {
            let sum = lanes[index] &+ weight
            lanes[index] = sum
            bits |= sum
        }
        seen |= bits
    }

    /// Adds a weight to everything that an L2 table refers to.
    ///
    /// - Parameters:
    ///   - bytes: The table.
    ///   - table: Where it is.
    ///   - weight: What to add.
    ///   - scan: How its entries are read.
    /// - Returns: What was found.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that can't be.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func addTable(
        _ bytes: Span<UInt8>, at table: HostOffset, _ weight: Lane, _ scan: L2TableScan
    ) throws(QCOW2Error) -> L2TableFindings {
        var findings = L2TableFindings()
        findings.flags = try scan.forEachRun(in: bytes, at: table) { run in
            add(run, weight)
            findings.note(run)
        }
        return findings
    }

    /// References in the file as it is.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    func old(_ cluster: UInt64) -> UInt64 { UInt64(lanes[Int(cluster - range.lowerBound)] & Self.referencesMask) }

    func covers(_ cluster: UInt64) -> Bool { range.contains(cluster) }

    /// Checks the stored refcounts of neighbouring clusters against the references, and finds what will change.
    ///
    /// Afterwards the lanes say whether the new refcount is one. Without a branch for a cluster, so that the compiler
    /// makes vector instructions of it: what is true or false is the top bit of a word here.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func settle(
        _ stored: [UInt64], count: Int, from first: UInt64, maximumRefcount: UInt64
    ) -> SettledPiece {
        let base = Int(first - range.lowerBound)
        var settlement = Settlement()
        // Spans of just this piece: bounds are checked once, and not in the loop, which then takes half the time.
        var whole = lanes.mutableSpan
        var part = whole._mutatingExtracting(base..<(base + count))
        let stored = stored.span.extracting(..<count)
        for start in stride(from: 0, to: count, by: Self.blockCount) {
            let block = start..<min(start + Self.blockCount, count)
            var lanes = part._mutatingExtracting(block)
            let refcounts = stored.extracting(block)
            if Self.isUniform(lanes.span, refcounts) {
                // Mostly so where clusters lie in the disk's order.
                let lane = lanes[0]
                let settled = settlement.settle(lane, refcounts[0], times: UInt64(block.count))
                if settled != lane { for index in 0..<block.count { lanes[index] = settled } }
            } else {
                for index in 0..<block.count {
                    lanes[index] = settlement.settle(lanes[index], refcounts[index], times: 1)
                }
            }
        }
        // No refcount falls below zero where none is too low, so what is above the maximum has risen.
        return SettledPiece(
            hasChanges: settlement.changes != 0,
            isBad: (settlement.bad >> 63) | (settlement.everyNew & ~maximumRefcount) != 0,
            freeCount: count - Int(settlement.usedCount))
    }

    /// How many clusters are looked at for being all alike.
    static var blockCount: Int { 512 }

    /// Whether all clusters have the same references, change and refcount.
    @inline(__always)
    private static func isUniform(_ lanes: Span<Lane>, _ refcounts: Span<UInt64>) -> Bool {
        let (lane, refcount, last) = (lanes[0], refcounts[0], lanes.count - 1)
        // Enough for most of those that aren't.
        guard lanes[last] == lane, refcounts[last] == refcount else { return false }
        var (laneBits, refcountBits): (Lane, UInt64) = (0, 0)
        for index in 0..<lanes.count { laneBits |= lanes[index] ^ lane }
        guard laneBits == 0 else { return false }
        for index in 0..<lanes.count { refcountBits |= refcounts[index] ^ refcount }
        return refcountBits == 0
    }

    /// What settling clusters has shown so far.
    private struct Settlement {
        /// All bits of all changes, and of all new refcounts.
        var changes: UInt64 = 0
        var everyNew: UInt64 = 0
        /// The top bit is set once something is bad.
        var bad: UInt64 = 0
        var usedCount: UInt64 = 0

        /// Looks at a cluster, or at several that are alike, and returns what becomes of the lane.
        @inline(__always)
        mutating func settle(_ lane: Lane, _ refcount: UInt64, times count: UInt64) -> Lane {
            let rest = refcount &- UInt64(truncatingIfNeeded: lane & referencesMask)
            let change = CountWindow.change(lane)
            let new = refcount &+ change
            changes |= change
            everyNew |= new
            // Fewer are stored than there are references, or a rising refcount runs over 64 bits.
            bad |= ~refcount & rest | refcount & ~new & ~change
            usedCount &+= (topBitIfNotZero(refcount) >> 63) &* count
            let isOne = Lane(truncatingIfNeeded: ~topBitIfNotZero(new ^ 1) >> 63)
            return lane & ~isOneBit | isOne << isOneShift
        }
    }

    /// The top bit if a word has any.
    @inline(__always)
    private static func topBitIfNotZero(_ word: UInt64) -> UInt64 { (word | (0 &- word)) & 1 << 63 }

    /// Whether a cluster that has a refcount would have too large a one.
    func isTooLarge(_ cluster: UInt64, _ refcount: UInt64, maximum: UInt64) -> Bool {
        let change = Int64(bitPattern: Self.change(lanes[Int(cluster - range.lowerBound)]))
        let (new, overflow) = refcount.addingReportingOverflow(UInt64(max(0, change)))
        return change > 0 && (overflow || new > maximum)
    }

    /// The change in a lane's high half, as a signed number of 64 bits.
    @inline(__always)
    private static func change(_ lane: Lane) -> UInt64 {
        // Not by an arithmetic shift, for which the processor's basic vector instructions have no 64-bit form.
        let sign = UInt64(1) << UInt64(Lane.bitWidth / 2 - 1)
        return (UInt64(truncatingIfNeeded: lane >> halfBits) ^ sign) &- sign
    }

    /// Adds the changes to the refcounts of neighbouring clusters.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    func applyChanges(to refcounts: inout [UInt64], count: Int, from first: UInt64) {
        let base = Int(first - range.lowerBound)
        for index in 0..<count {
            refcounts[index] &+= Self.change(lanes[base &+ index])
        }
    }

    /// Whether a cluster's new refcount is one; once it is settled.
    func isOne(_ cluster: UInt64) -> Bool { lanes[Int(cluster - range.lowerBound)] & Self.isOneBit != 0 }

    /// Whether the new refcounts of a run's clusters are all one, or none is; `nil` if it depends, or none is covered.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    func areOne(_ run: ClusterRun) -> (all: Bool, none: Bool) {
        let first = max(run.first, range.lowerBound)
        let end = min(run.end, range.upperBound)
        guard first < end else { return (true, true) }
        var (all, any): (Lane, Lane) = (.max, 0)
        for index in Int(first - range.lowerBound)..<Int(end - range.lowerBound) {
            all &= lanes[index]
            any |= lanes[index]
        }
        return (all & Self.isOneBit != 0, any & Self.isOneBit == 0)
    }
}

extension CountWindow: SweepClient {
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func addKnown(_ sweep: ReferenceSweep) -> Bool {
        for index in 0..<sweep.tables.count {
            let table = sweep.tables[index]
            guard let weight = Self.weight(old: table.oldWeight, new: table.newWeight) else { return false }
            add(sweep.cluster(of: index), weight)
            guard sweep.contents[index].targets.overlaps(range) else { continue }
            for run in sweep.contents.keptRuns(of: index) ?? [] { add(run, weight) }
        }
        return true
    }

    /// Adds single clusters, which are in ascending order, all with the same weight.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    mutating func add(_ clusters: [UInt64], _ weight: Lane) {
        for cluster in clusters.clusters(in: range) { add(ClusterRun(first: cluster, count: 1), weight) }
    }

    mutating func add(
        _ index: Int, _ bytes: Span<UInt8>, isFirst: Bool, _ sweep: ReferenceSweep
    ) throws(QCOW2Error) -> L2TableFindings {
        let table = sweep.tables[index]
        // Checked for all tables when their own clusters were added.
        let weight = Self.weight(old: table.oldWeight, new: table.newWeight) ?? 0
        return try addTable(bytes, at: table.offset, weight, sweep.scan)
    }
}

/// What the refcounts of a few neighbouring clusters turned out to be.
struct SettledPiece {
    let hasChanges: Bool
    /// Whether some refcount is lower than the references, or would be too large.
    let isBad: Bool
    let freeCount: Int
}
