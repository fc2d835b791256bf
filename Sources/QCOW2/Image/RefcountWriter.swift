// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Makes the refcount blocks of the new state from those of the old one, piece by piece.
struct RefcountWriter {
    private var plan: RefcountPlan
    private var reader: RefcountReader
    private var values = [UInt64](repeating: 0, count: RefcountReader.pieceCount)
    /// The clusters that only the old state uses.
    private(set) var freed = FreedClusters()
    /// The index after the last cluster in use.
    private(set) var end: UInt64 = 1

    /// How many of the plan's reserve lie behind.
    private var reservePosition = 0

    private var geometry: ImageGeometry { plan.table.geometry }

    init(_ plan: RefcountPlan) {
        self.plan = plan
        reader = RefcountReader(plan.table)
    }

    /// Hands every block that changes to the writer.
    mutating func write<S: Storage & ~Copyable>(
        with writer: inout SequentialWriter, to storage: inout S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var changed = Set<Int>(minimumCapacity: plan.targets.count)
        for target in plan.targets {
            changed.insert(target.index)
            try writeBlock(target.index, at: target.offset, with: &writer, to: &storage, &work)
            try work.advance(by: geometry.clusterSize)
        }
        freed.finish()
        for (index, lastUsed) in plan.blocks.lastUsed.enumerated() where !changed.contains(index) {
            end = max(end, lastUsed + 1)
        }
    }

    private mutating func writeBlock<S: Storage & ~Copyable>(
        _ index: Int, at target: HostOffset, with writer: inout SequentialWriter, to storage: inout S,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let geometry = geometry
        let first = UInt64(index) * geometry.refcountsPerBlock
        let end = first + geometry.refcountsPerBlock
        var position = first
        while position < end {
            let piece = reader.piece(from: position, upTo: end)
            try reader.read(piece, from: storage)
            let count = Int(piece.upperBound - piece.lowerBound)
            for index in 0..<count { values[index] = reader.values[index] }
            if plan.setsAllRefcounts || (index < plan.blocks.hasChanges.count && plan.blocks.hasChanges[index]) {
                try plan.changes.addChanges(to: &values, of: piece, reading: storage, &work)
            }
            plan.adjustments.apply(to: &values, of: piece)
            try look(at: piece)
            let byteOffset = ((piece.lowerBound - first) << UInt64(geometry.refcountOrder)) / 8
            let values = values
            try writer.add(
                (count << geometry.refcountOrder + 7) / 8, at: target.saturating(adding: byteOffset), to: &storage
            ) {
                (bytes: inout MutableSpan<UInt8>, _) in
                RefcountBlock.encode(values, order: geometry.refcountOrder, count: count, into: &bytes)
            }
            position = piece.upperBound
        }
    }

    /// Finds what is freed, and what is in use last.
    private mutating func look(at piece: Range<UInt64>) throws(QCOW2Error) {
        var isTooLarge = false
        let maximum = geometry.maximumRefcount
        for index in 0..<Int(piece.upperBound - piece.lowerBound) {
            let (old, new) = (reader.values[index], values[index])
            isTooLarge = isTooLarge || new > maximum
            if new != 0 {
                end = piece.lowerBound + UInt64(index) + 1
            } else if old != 0 {
                let cluster = piece.lowerBound + UInt64(index)
                while reservePosition < plan.reserve.count, plan.reserve[reservePosition] < cluster {
                    reservePosition += 1
                }
                let isReserve = reservePosition < plan.reserve.count && plan.reserve[reservePosition] == cluster
                if !isReserve { freed.add(cluster) }
            }
        }
        // The survey refused what the trees would need; nothing else is referred to more than once.
        if isTooLarge { throw .tooManyReferences(geometry, at: geometry.offset(ofCluster: piece.lowerBound)) }
    }
}

/// Clusters that can be given back to the file system, as runs.
///
/// Where there are very many runs, the short ones are left out: giving them back would take longer than the operation,
/// and whoever writes to the image uses them first.
struct FreedClusters: Sendable {
    private(set) var runs: [ClusterRun] = []
    private var shortest: UInt64 = 1
    private var last = ClusterRun(first: 0, count: 0)

    /// A thousand holes take some tenths of a second.
    private static let maximumRunCount = 1 << 14

    mutating func add(_ cluster: UInt64) {
        if last.end == cluster, last.count > 0 {
            last.count += 1
        } else {
            finish()
            last = ClusterRun(first: cluster, count: 1)
        }
    }

    /// Ends the last run, once there are no more.
    mutating func finish() {
        if last.count >= shortest { runs.append(last) }
        last.count = 0
        while runs.count > Self.maximumRunCount {
            shortest *= 2
            let limit = shortest
            runs.removeAll { $0.count < limit }
        }
    }
}
