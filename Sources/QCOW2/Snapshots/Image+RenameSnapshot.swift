// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Gives a snapshot another name.
    ///
    /// Its ID, date and content stay.
    ///
    /// One commit with two flushes: a crash at any moment leaves the old name or the new one.
    ///
    /// - Parameters:
    ///   - selector: Which snapshot.
    ///   - name: 1 to 255 bytes without control characters, unlike any other snapshot's name.
    ///   - options: Whether replaced clusters are given back to the file system.
    /// - Returns: The snapshot with its new name.
    /// - Throws: ``QCOW2Error`` with the code `noSuchSnapshot`, `ambiguousSnapshot`, and all that
    ///   ``createSnapshot(named:date:options:)`` throws. The image is as before.
    @discardableResult
    public mutating func renameSnapshot(
        _ selector: SnapshotSelector, to name: String, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> Snapshot {
        let index = try index(of: selector)
        var others = entries
        others.remove(at: index)
        let bytes = try SnapshotTableEntry.checkedName(Array(name.utf8), among: others)
        try update(options) { (_, proposal) throws(QCOW2Error) in proposal.snapshots[index].entry.name = bytes }
        return Snapshot(entries[index], imageSize: header.size)
    }
}
