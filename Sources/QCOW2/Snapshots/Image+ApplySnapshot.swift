// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Makes the active state equal to a snapshot, its disk size included.
    ///
    /// The snapshot stays.
    ///
    /// The previous active state is lost, unless it is saved as a snapshot in the same commit. VM state in the
    /// snapshot becomes part of the active state again. One commit with two flushes: a crash at any moment leaves the
    /// old active state or the new one, and never changes a snapshot.
    ///
    /// - Parameters:
    ///   - selector: Which snapshot.
    ///   - savedName: The name of a new snapshot of the previous active state; none by default.
    ///   - date: When the new snapshot is said to have been made.
    ///   - bitmaps: What to do with bitmaps, which would no longer match the disk.
    ///   - options: Whether freed clusters are given back to the file system.
    /// - Returns: The snapshot that was applied.
    /// - Throws: ``QCOW2Error`` with the code `noSuchSnapshot`, `ambiguousSnapshot`, `activeBitmaps`, `corrupt` (also
    ///   for a disk size that no disk can have), and all that ``createSnapshot(named:date:options:)`` throws. The
    ///   image is as before.
    @discardableResult
    public mutating func applySnapshot(
        _ selector: SnapshotSelector, savingCurrentAs savedName: String? = nil, date: SnapshotDate = .now,
        bitmaps: BitmapPolicy = .refuse, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> Snapshot {
        try applySnapshot(
            at: try index(of: selector), savingCurrentAs: savedName.map { NewSnapshot(named: $0, date: date) },
            bitmaps: bitmaps, options: options)
    }

    /// Makes the active state equal to the snapshot at an index of ``snapshots``.
    ///
    /// For snapshots that no selector tells apart; otherwise like
    /// ``applySnapshot(_:savingCurrentAs:date:bitmaps:options:)``.
    ///
    /// - Parameters:
    ///   - index: Which snapshot; one that doesn't exist traps.
    ///   - saved: A new snapshot of the previous active state; none by default.
    ///   - bitmaps: What to do with bitmaps, which would no longer match the disk.
    ///   - options: Whether freed clusters are given back to the file system.
    /// - Returns: The snapshot that was applied.
    /// - Throws: What the other one throws, except for not finding the snapshot. The image is as before.
    @discardableResult
    public mutating func applySnapshot(
        at index: Int, savingCurrentAs saved: NewSnapshot? = nil, bitmaps: BitmapPolicy = .refuse,
        options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) -> Snapshot {
        let applied = Snapshot(entries[index], imageSize: header.size)
        let name = storage.name
        try update(options) { (state, proposal) throws(QCOW2Error) in
            if let saved { try proposal.addSnapshot(saved, of: state) }
            if state.hasTrustedBitmaps {
                guard bitmaps == .drop else { throw .activeBitmaps(name, "apply") }
                proposal.dropsBitmaps = true
            }
            proposal.activeTree = index + 1
            proposal.virtualSize = try Self.virtualSize(applying: applied, to: state)
            try state.entries[index].checkL1EntryCount(in: state.header)
        }
        return applied
    }

    /// The header's size after applying a snapshot.
    ///
    /// Invariant I-27.
    private static func virtualSize(applying snapshot: Snapshot, to state: ImageState) throws(QCOW2Error) -> UInt64 {
        let sectorMask = ImageGeometry.sectorSize - 1
        // A header's size that is no multiple of a sector counts as rounded down, and is kept as it is.
        if snapshot.diskSize == state.header.size & ~sectorMask { return state.header.size }
        if snapshot.diskSize == state.header.size { return state.header.size }
        guard snapshot.diskSize & sectorMask == 0 else {
            throw QCOW2Error(
                .corrupt, "The snapshot's disk size of \(snapshot.diskSize) bytes is no multiple of 512.")
        }
        guard snapshot.diskSize < 1 << 63,
            state.geometry.l1EntryCount(forDiskSize: snapshot.diskSize) <= ImageGeometry.maximumL1EntryCount
        else {
            throw QCOW2Error(
                .corrupt, "The snapshot's disk size of \(snapshot.diskSize) bytes is larger than the image can map.")
        }
        return snapshot.diskSize
    }
}
