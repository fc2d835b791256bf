// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The refcounts that a repaired image will have.
struct RepairCounts: Sendable {
    /// What becomes of a refcount that isn't the number of references.
    enum Policy: Sendable {
        /// It becomes that.
        case exact
        /// It is raised, but never lowered: not all references are known.
        case raising
        /// It is lowered, but never raised.
        case lowering
        /// It stays.
        case keeping

        func refcount(stored: UInt64, references: UInt64) -> UInt64 {
            switch self {
            case .exact: references
            case .raising: max(stored, references)
            case .lowering: min(stored, references)
            case .keeping: stored
            }
        }
    }

    let policy: Policy
    private(set) var tally: ReferenceTally
    private var window = CheckWindow<UInt64>(0..<0)
    private let windows: ClusterWindows

    private var clusterCount: UInt64 { tally.subject.countedClusterCount }

    init(_ tally: ReferenceTally, _ policy: Policy, budget: Int) {
        self.policy = policy
        self.tally = tally
        windows = tally.windows(laneByteCount: 8, budget: budget)
    }

    /// Counts the references to the clusters around one, unless that was done last.
    private mutating func cover<S: Storage & ~Copyable>(
        _ cluster: UInt64, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        guard cluster < clusterCount, !window.covers(cluster) else { return }
        guard let range = windows.range(of: cluster) else { return }
        window = CheckWindow(0..<0)  // Gives the memory back first.
        window = CheckWindow(range)
        guard try tally.count(.all, in: &window, reading: storage, nil, &work) != nil else {
            throw .overflow("number of references")
        }
    }

    /// The known references to a cluster; for one of the file, only where the window is.
    private func references(to cluster: UInt64) -> UInt64 {
        window.covers(cluster) ? window.count(cluster) : tally.pastEnd.counts[cluster] ?? 0
    }

    /// Goes through all clusters of the file and those that a block describes, with their old and new refcounts.
    mutating func forEachPiece<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter,
        _ body: (_ piece: Range<UInt64>, _ old: [UInt64], _ new: [UInt64]) -> Void,
        afterWindow: (_ window: inout CheckWindow<UInt64>, _ tally: inout ReferenceTally, _ work: inout WorkMeter)
            throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let refcounts = tally.subject.refcounts
        var reader = RefcountReader(refcounts, readsAhead: true)
        var new = [UInt64](repeating: 0, count: RefcountReader.pieceCount)
        func visit(_ range: Range<UInt64>, _ settled: inout CheckWindow<UInt64>) throws(QCOW2Error) {
            var first = range.lowerBound
            while first < range.upperBound {
                let piece = reader.piece(from: first, upTo: range.upperBound)
                try reader.read(piece, from: storage)
                for index in 0..<piece.count {
                    new[index] = policy.refcount(
                        stored: reader.values[index], references: references(to: piece.lowerBound + UInt64(index)))
                }
                body(piece, reader.values, new)
                settled.loadOnes(new, of: piece)
                first = piece.upperBound
            }
        }
        for range in windows.ranges {
            try cover(range.lowerBound, reading: storage, &work)
            var settled = window
            try visit(range, &settled)
            try afterWindow(&settled, &tally, &work)
        }
        var none = CheckWindow<UInt64>(0..<0)
        for index in refcounts.blockOffsets.indices where refcounts.hasData(index) {
            let first = UInt64(index) * tally.subject.geometry.refcountsPerBlock
            let last = first + tally.subject.geometry.refcountsPerBlock
            if last > clusterCount { try visit(max(first, clusterCount)..<last, &none) }
        }
    }
}

extension RepairCounts: ReferenceChanges {
    mutating func addChanges<S: Storage & ~Copyable>(
        to refcounts: inout [UInt64], of piece: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        try cover(piece.lowerBound, reading: storage, &work)
        for index in 0..<piece.count {
            refcounts[index] = policy.refcount(
                stored: refcounts[index], references: references(to: piece.lowerBound + UInt64(index)))
        }
    }
}
