// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Deletes any number of snapshots at once.
    ///
    /// All go in one commit with two flushes, so a crash at any moment leaves all of them or none. Clusters that only
    /// they used are given back to the file system afterwards.
    ///
    /// - Parameters:
    ///   - selectors: Which snapshots; naming one twice is no error. Nothing happens when empty.
    ///   - options: Whether freed clusters are given back to the file system.
    /// - Returns: The deleted snapshots, in table order.
    /// - Throws: ``QCOW2Error`` with the code `noSuchSnapshot`, `ambiguousSnapshot`, `readOnly`, `needsRepair`,
    ///   `unsupported`, `corrupt`, `limitExceeded` or `inputOutput`. The image is as before.
    @discardableResult
    public mutating func deleteSnapshots(
        _ selectors: [SnapshotSelector], options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> [Snapshot] {
        var doomed: Set<Int> = []
        for selector in selectors { doomed.insert(try index(of: selector)) }
        return try deleteSnapshots(at: doomed, options: options)
    }

    /// Deletes the snapshots at some indices of ``snapshots``.
    ///
    /// For snapshots that no selector tells apart: the format allows equal IDs and names, and ones that aren't UTF-8.
    /// All go in one commit, as with ``deleteSnapshots(_:options:)``.
    ///
    /// - Parameters:
    ///   - indices: Which snapshots; naming one twice is no error, one that doesn't exist traps.
    ///   - options: Whether freed clusters are given back to the file system.
    /// - Returns: The deleted snapshots, in table order.
    /// - Throws: ``QCOW2Error`` with the code `readOnly`, `needsRepair`, `unsupported`, `corrupt`, `limitExceeded` or
    ///   `inputOutput`. The image is as before.
    @discardableResult
    public mutating func deleteSnapshots(
        at indices: some Sequence<Int>, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> [Snapshot] {
        let doomed = Set(indices)
        guard !doomed.isEmpty else { return [] }
        let deleted = doomed.sorted().map { Snapshot(entries[$0], imageSize: header.size) }
        try update(options) { (_, proposal) throws(QCOW2Error) in
            proposal.deleteSnapshots(at: doomed)
        }
        return deleted
    }
}

extension Proposal {
    /// Leaves out the snapshots at some indices.
    mutating func deleteSnapshots(at doomed: Set<Int>) {
        snapshots = snapshots.indices.filter { !doomed.contains($0) }.map { snapshots[$0] }
    }
}
