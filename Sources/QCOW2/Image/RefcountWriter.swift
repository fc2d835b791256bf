// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Makes the refcount blocks of the new state from those of the old one, piece by piece.
struct RefcountWriter {
    private var plan: RefcountPlan
    private var reader: RefcountReader
    private var values = [UInt64](repeating: 0, count: RefcountReader.pieceCount)
    /// The clusters that only the old state uses.
    private(set) var freed = FreedClusters()
    /// How many clusters only the old state uses, and how many only the new one.
    private(set) var balance = (freed: UInt64(0), taken: UInt64(0))
    /// The index after the last cluster in use.
    private(set) var end: UInt64 = 1

    /// How many of the plan's reserve lie behind.
    private var reservePosition = 0

    private var geometry: ImageGeometry { plan.table.geometry }

    init(_ plan: consuming RefcountPlan) {
        reader = RefcountReader(plan.table)
        self.plan = plan
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

    /// Looks at every block that changes without writing any: afterwards the writer knows what would be freed.
    mutating func survey<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        for target in plan.targets {
            var clusters = clusters(ofBlock: target.index)
            while !clusters.isEmpty {
                let piece = try makePiece(of: clusters, inBlock: target.index, reading: storage, &work)
                clusters = piece.upperBound..<clusters.upperBound
            }
            try work.advance(by: geometry.clusterSize)
        }
    }

    private func clusters(ofBlock index: Int) -> Range<UInt64> {
        let first = UInt64(index) * geometry.refcountsPerBlock
        return first..<(first + geometry.refcountsPerBlock)
    }

    private mutating func writeBlock<S: Storage & ~Copyable>(
        _ index: Int, at target: HostOffset, with writer: inout SequentialWriter, to storage: inout S,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let geometry = geometry
        var clusters = clusters(ofBlock: index)
        let first = clusters.lowerBound
        while !clusters.isEmpty {
            let piece = try makePiece(of: clusters, inBlock: index, reading: storage, &work)
            let count = piece.count
            let byteOffset = ((piece.lowerBound - first) << UInt64(geometry.refcountOrder)) / 8
            let values = values
            try writer.add(
                (count << geometry.refcountOrder + 7) / 8, at: target.saturating(adding: byteOffset), to: &storage
            ) {
                (bytes: inout MutableSpan<UInt8>, _) in
                RefcountBlock.encode(values, order: geometry.refcountOrder, count: count, into: &bytes)
            }
            clusters = piece.upperBound..<clusters.upperBound
        }
    }

    /// Makes the new refcounts of the first clusters of a range, in ``values``.
    ///
    /// - Returns: The clusters whose refcounts were made.
    private mutating func makePiece<S: Storage & ~Copyable>(
        of clusters: Range<UInt64>, inBlock index: Int, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Range<UInt64> {
        let piece = reader.piece(from: clusters.lowerBound, upTo: clusters.upperBound)
        try reader.read(piece, from: storage)
        for position in 0..<piece.count { values[position] = reader.values[position] }
        if plan.setsAllRefcounts || (index < plan.blocks.hasChanges.count && plan.blocks.hasChanges[index]) {
            try plan.changes.addChanges(to: &values, of: piece, reading: storage, &work)
        }
        plan.adjustments.apply(to: &values, of: piece)
        try look(at: piece)
        return piece
    }

    /// Finds what is freed, and what is in use last.
    private mutating func look(at piece: Range<UInt64>) throws(QCOW2Error) {
        let count = Int(piece.upperBound - piece.lowerBound)
        let summary = Self.summary(old: reader.values, new: values, count: count)
        // The survey refused what the trees would need; nothing else is referred to more than once.
        if summary.everyNew & ~geometry.maximumRefcount != 0 {
            throw .tooManyReferences(geometry, at: geometry.offset(ofCluster: piece.lowerBound))
        }
        if let last = (0..<count).last(where: { values[$0] != 0 }) { end = piece.lowerBound + UInt64(last) + 1 }
        balance.taken &+= summary.takenCount
        balance.freed &+= summary.freedCount
        guard summary.freedCount > 0 else { return }
        for index in 0..<count where values[index] == 0 && reader.values[index] != 0 {
            let cluster = piece.lowerBound + UInt64(index)
            while reservePosition < plan.reserve.count, plan.reserve[reservePosition] < cluster {
                reservePosition += 1
            }
            let isReserve = reservePosition < plan.reserve.count && plan.reserve[reservePosition] == cluster
            if !isReserve { freed.add(cluster) }
        }
    }

    /// How many refcounts fall to zero and rise from it, and the bits that any new one has; in vector instructions.
    private static func summary(
        old: [UInt64], new: [UInt64], count: Int
    ) -> (freedCount: UInt64, takenCount: UInt64, everyNew: UInt64) {
        var (freed, taken, everyNew): (UInt64, UInt64, UInt64) = (0, 0, 0)
        for index in 0..<count {
            let (old, new) = (old[index], new[index])
            // The top bit says whether the number isn't zero.
            let (wasUsed, isUsed) = (old | (0 &- old), new | (0 &- new))
            everyNew |= new
            freed &+= (wasUsed & ~isUsed) >> 63
            taken &+= (isUsed & ~wasUsed) >> 63
        }
        return (freed, taken, everyNew)
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
