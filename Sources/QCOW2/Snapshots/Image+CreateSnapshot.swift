// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Creates a snapshot of the active state.
    ///
    /// The snapshot shares all clusters with the active state. Its disk size is recorded, it has no VM state, and an
    /// ID one above the largest. Bitmaps stay valid. One commit with two flushes: a crash at any moment leaves the
    /// image without the snapshot or with it.
    ///
    /// - Parameters:
    ///   - name: 1 to 255 bytes without control characters, unlike any other snapshot's name.
    ///   - date: When the snapshot is said to have been made.
    ///   - options: Whether replaced clusters are given back to the file system.
    /// - Returns: The new snapshot.
    /// - Throws: ``QCOW2Error`` with the code `invalidName`, `nameInUse`, `limitExceeded` (snapshots, references,
    ///   file size), `readOnly`, `needsRepair`, `unsupported`, `corrupt` or `inputOutput`. The image is as before.
    @discardableResult
    public mutating func createSnapshot(
        named name: String, date: SnapshotDate = .now, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> Snapshot {
        try createSnapshot(NewSnapshot(named: name, date: date), options: options)
    }

    /// Creates a snapshot of the active state that says about itself what the caller wants.
    ///
    /// Otherwise like ``createSnapshot(named:date:options:)``.
    ///
    /// - Parameters:
    ///   - new: Name, date and more; and which names are allowed.
    ///   - options: Whether replaced clusters are given back to the file system.
    /// - Returns: The new snapshot.
    /// - Throws: What ``createSnapshot(named:date:options:)`` throws. The image is as before.
    @discardableResult
    public mutating func createSnapshot(
        _ new: NewSnapshot, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> Snapshot {
        try update(options) { (state, proposal) throws(QCOW2Error) in try proposal.addSnapshot(new, of: state) }
        // The table's order is the order of creation.
        return Snapshot(entries[entries.count - 1], imageSize: header.size)
    }
}
