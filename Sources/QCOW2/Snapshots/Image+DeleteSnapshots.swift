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
        guard !doomed.isEmpty else { return [] }
        let deleted = doomed.sorted().map { Snapshot(entries[$0], imageSize: header.size) }
        try update(options) { (_, proposal) throws(QCOW2Error) in
            proposal.snapshots = proposal.snapshots.indices.filter { !doomed.contains($0) }.map {
                proposal.snapshots[$0]
            }
        }
        return deleted
    }
}
