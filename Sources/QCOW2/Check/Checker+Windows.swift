// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Checker {
    /// Checks the clusters of a range.
    ///
    /// - Returns: Whether the lanes were wide enough; if not, nothing was noted, except about L2 entries by themselves.
    mutating func check<Lane, S: Storage & ~Copyable>(
        _ range: Range<UInt64>, _ type: CheckWindow<Lane>.Type, _ storage: borrowing S
    ) throws(QCOW2Error) -> Bool {
        var window = CheckWindow<Lane>(range)
        try forEachPiece(of: range, storage) { piece, stored, _ in
            window.load(stored, count: piece.count, from: piece.lowerBound)
        }
        guard let suspects = try tally.count(.all, in: &window, reading: storage, sink, &work) else { return false }
        let lowCount = try compare(window, storage)
        if window.collides { try findSharedClusters(in: range, storage) }
        if !suspects.isEmpty { try reportFlags(of: suspects, window, storage) }
        // As long as flags and refcounts agree, and refcounts and references, a flag speaks for one reference.
        let isDoubtful = lowCount > 0 || !suspects.isEmpty
        if isDoubtful, !subject.snapshots.isEmpty { try findWritableSnapshots(in: window, storage) }
        return true
    }

    /// Reads the stored refcounts of neighbouring clusters, piece by piece.
    private mutating func forEachPiece<S: Storage & ~Copyable>(
        of range: Range<UInt64>, _ storage: borrowing S,
        _ body: (_ piece: Range<UInt64>, _ stored: [UInt64], _ isDescribed: Bool) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var first = range.lowerBound
        while first < range.upperBound {
            let piece = refcounts.piece(from: first, upTo: range.upperBound)
            let isDescribed = try refcounts.read(piece, from: storage)
            try body(piece, refcounts.values, isDescribed)
            first = piece.upperBound
            try work.checkForWish()
        }
    }

    /// Compares references with refcounts.
    ///
    /// Invariants I-18 and I-20.
    ///
    /// - Returns: How many refcounts are too low.
    private mutating func compare<Lane, S: Storage & ~Copyable>(
        _ window: CheckWindow<Lane>, _ storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        var end = end
        var comparison = RefcountComparison(subject, sink)
        try forEachPiece(of: window.range, storage) { piece, stored, _ in
            let (differ, anyUsed) = window.compare(stored, count: piece.count, from: piece.lowerBound)
            guard anyUsed else { return }
            var isLast = true
            for cluster in piece.reversed() {
                let (references, refcount) = (window.count(cluster), stored[Int(cluster - piece.lowerBound)])
                if isLast, references | refcount != 0 {
                    end = cluster + 1
                    isLast = false
                    if !differ { break }
                }
            }
            guard differ else { return }
            for cluster in piece {
                let (references, refcount) = (window.count(cluster), stored[Int(cluster - piece.lowerBound)])
                if references != refcount { comparison.note(cluster, references, refcount) }
            }
        }
        comparison.finish()
        self.end = end
        return comparison.lowCount
    }

    /// Checks the refcounts of clusters that don't exist.
    ///
    /// Only blocks that are in the file are read, so the work is bounded by its length.
    mutating func checkPastEnd<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        let fileEnd = subject.countedClusterCount
        let perBlock = geometry.refcountsPerBlock
        var comparison = RefcountComparison(subject, sink)
        let pastEnd = tally.pastEnd
        var end = end
        for index in subject.refcounts.blockOffsets.indices where subject.refcounts.hasData(index) {
            let last = (UInt64(index) + 1) * perBlock
            guard last > fileEnd else { continue }
            let first = max(UInt64(index) * perBlock, fileEnd)
            try forEachPiece(of: first..<last, storage) { piece, stored, _ in
                var bits: UInt64 = 0
                for position in 0..<piece.count { bits |= stored[position] }
                guard bits != 0 else { return }
                for cluster in piece where stored[Int(cluster - piece.lowerBound)] != 0 {
                    let (references, refcount) = (
                        pastEnd.counts[cluster] ?? 0, stored[Int(cluster - piece.lowerBound)]
                    )
                    end = max(end, cluster + 1)
                    if references == refcount || pastEnd.isCut && references == 0 { continue }
                    comparison.note(cluster, references, refcount)
                }
            }
        }
        comparison.finish()
        self.end = end
    }
}

/// Says what is wrong with refcounts: once for neighbouring clusters of which it is the same.
struct RefcountComparison {
    private let geometry: ImageGeometry
    private let isComplete: Bool
    private let sink: FindingSink
    /// Clusters of which it wasn't said yet.
    private var run = ClusterRun(first: 0, count: 0)
    private var (references, refcount): (UInt64, UInt64) = (0, 0)
    /// How many refcounts are too low.
    private(set) var lowCount: UInt64 = 0

    init(_ subject: ImageReading, _ sink: FindingSink) {
        geometry = subject.geometry
        isComplete = subject.isComplete
        self.sink = sink
    }

    /// Notes that a cluster's refcount isn't the number of its references; clusters come in ascending order.
    mutating func note(_ cluster: UInt64, _ references: UInt64, _ refcount: UInt64) {
        if refcount < references || references > geometry.maximumRefcount { lowCount += 1 }
        if cluster == run.end, references == self.references, refcount == self.refcount {
            run = ClusterRun(first: run.first, count: run.count + 1)
            return
        }
        finish()
        run = ClusterRun(first: cluster, count: 1)
        (self.references, self.refcount) = (references, refcount)
    }

    /// Says what is left to say.
    mutating func finish() {
        guard run.count > 0 else { return }
        let place = geometry.offset(ofCluster: run.first)
        let (run, references, refcount) = (run, references, refcount)
        self.run = ClusterRun(first: 0, count: 0)
        func add(_ rule: FindingRule, _ what: @autoclosure () -> String) {
            var clusters: String {
                run.count == 1 ? "Cluster \(run.first) has" : "Clusters \(run.first) to \(run.end - 1) have"
            }
            sink.add(
                rule, at: place, in: "refcounts", index: run.first, count: run.count, "\(clusters) \(what())")
        }
        if references > geometry.maximumRefcount {
            add(.refcountOverflow, "\(references) references, more than \(geometry.refcountBits) bits can count.")
        } else if refcount < references {
            add(.refcountTooLow, "the refcount \(refcount), but \(references) references.")
        } else if isComplete {
            add(.refcountTooHigh, "the refcount \(refcount), but \(references) references.")
        } else {
            add(
                .referencesUnknown,
                "the refcount \(refcount), but \(references) known references; what couldn't be read may refer to it.")
        }
    }
}
