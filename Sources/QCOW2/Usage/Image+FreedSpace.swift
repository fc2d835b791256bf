// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Says exactly what deleting a set of snapshots would free, without deleting any.
    ///
    /// Plans the deletion as ``deleteSnapshots(at:options:)`` does, and compares the refcounts of both states. A set
    /// frees at least as much as its parts each alone together: what two snapshots share goes only with both.
    ///
    /// - Parameters:
    ///   - indices: Which snapshots, by their index in ``snapshots``; naming one twice is no error, one that doesn't
    ///     exist traps.
    ///   - options: Memory and progress.
    /// - Returns: The bytes of clusters in use before, minus those in use after. Tables that are only rewritten don't
    ///   show in it. A host file with holes may give back less. Negative only where the new state needs refcount
    ///   blocks or L1 clusters that the old one didn't have, and frees next to nothing.
    /// - Throws: What ``deleteSnapshots(at:options:)`` throws, except `readOnly`.
    public func byteCountFreed(
        byDeletingSnapshotsAt indices: some Sequence<Int>, options: ScanOptions = ScanOptions()
    ) throws(QCOW2Error) -> Int64 {
        let doomed = Set(indices)
        guard !doomed.isEmpty else { return 0 }
        var work = WorkMeter(options.progress)
        let update = try plan(budget: options.memoryBudget, &work) { (_, proposal) throws(QCOW2Error) in
            proposal.deleteSnapshots(at: doomed)
        }
        // The planner of verbs always says what becomes of the refcounts.
        guard let refcounts = update.refcounts else { return 0 }
        var writer = RefcountWriter(refcounts)
        try writer.survey(reading: storage, &work)
        let clusterSize = Int64(header.geometry.clusterByteCount)
        // Both counts are of clusters that the file has room for, or that the planner just placed behind it.
        return (Int64(clamping: writer.balance.freed) - Int64(clamping: writer.balance.taken)) &* clusterSize
    }
}
