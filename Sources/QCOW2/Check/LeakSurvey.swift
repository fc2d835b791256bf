// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which clusters a repair would free, where all references are known.
struct LeakSurvey {
    /// The clusters with a refcount that nothing refers to.
    private(set) var leaked: ClusterSet
    /// Those without one that something refers to.
    private(set) var uncounted: ClusterSet

    /// Counts all references once more.
    init<S: Storage & ~Copyable>(
        _ tally: ReferenceTally, budget: Int, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var leaked = ClusterSet(clusterCount: tally.subject.fileClusterCount, pageLimit: ClusterSet.partPageLimit)
        var uncounted = leaked
        var counts = RepairCounts(tally, .exact, budget: budget)
        try counts.forEachPiece(reading: storage, &work) { piece, old, new in
            for index in 0..<piece.count where (old[index] == 0) != (new[index] == 0) {
                if new[index] == 0 {
                    leaked.insert(piece.lowerBound + UInt64(index))
                } else {
                    uncounted.insert(piece.lowerBound + UInt64(index))
                }
            }
        } afterWindow: { _, _, _ in
        }
        guard !leaked.isCut, !uncounted.isCut else {
            throw QCOW2Error(
                .limitExceeded,
                "There are too many leaked clusters to search them for what deleted snapshots left; "
                    + "--discard-remnants frees them unseen.")
        }
        (self.leaked, self.uncounted) = (leaked, uncounted)
    }
}

extension Checker {
    /// Finds what a repair would destroy by freeing leaked clusters.
    func remnants<S: Storage & ~Copyable>(
        budget: Int, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> [Remnant] {
        let survey = try LeakSurvey(tally, budget: budget, reading: storage, &work)
        guard !survey.leaked.isEmpty else { return [] }
        let snapshots = subject.snapshots + subject.unusableSnapshots
        var search = RemnantSearch(
            TableShape(geometry: geometry, fileByteCount: subject.bounds.byteCount), leaked: survey.leaked,
            uncounted: survey.uncounted, subject.refcounts,
            present: snapshots.map { Snapshot($0.entry, imageSize: subject.header.size) })
        let behind = try subject.entriesBehindSnapshotTable(reading: storage)
        let found = try search.search(knowing: behind, reading: storage, &work)
        // A snapshot that the header doesn't count is one, even if all its data is shared.
        let uncounted = behind.filter { entry, offset in
            survey.leaked.contains(geometry.cluster(at: entry.l1TableOffset)) && !found.contains { $0.offset == offset }
        }
        return uncounted.map { entry, offset in
            Remnant(
                kind: .snapshotEntry, offset: offset, snapshot: Snapshot(entry, imageSize: subject.header.size),
                dataClusterCount: 0)
        } + found
    }
}
