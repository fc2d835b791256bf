// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Checker {
    /// Notes entries behind the snapshot table whose L1 tables no deletion has freed.
    ///
    /// A deletion frees the L1 table. Where its clusters still have a refcount, but nothing that a check knows is there,
    /// the header counts fewer snapshots than there are, or the deletion was never finished.
    func checkBehindSnapshotTable<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        let shape = TableShape(geometry: geometry, fileByteCount: subject.bounds.byteCount)
        var refcounts = RefcountReader(subject.refcounts, pieceCount: 256)
        for (entry, offset) in try subject.entriesBehindSnapshotTable(reading: storage) {
            let table = entry.l1TableOffset
            let run = ClusterRun(first: geometry.cluster(at: table), count: 1)
            guard try refcounts.refcount(of: run.first, from: storage) > 0, claims.owner(of: run) == nil,
                tally.l2Tables.index(of: table, near: 0) == nil
            else { continue }
            let byteCount = min(UInt64(entry.l1EntryCount) * UInt64(L1Entry.byteCount), geometry.clusterSize)
            let bytes = try storage.readBytes(Int(byteCount), at: table)
            guard let l2Tables = shape.l2Tables(ofL1EntriesIn: bytes.span), !l2Tables.isEmpty else { continue }
            sink.add(
                .snapshotBehindTable, at: offset, in: "snapshot table", index: UInt64(subject.header.snapshotCount),
                "Behind the last entry that the header counts is one of a snapshot '\(escaped(entry.id))', named "
                    + "'\(escaped(entry.name))', and its L1 table at \(table) was not freed.")
        }
    }
}

extension ImageReading {
    /// The entries that follow the snapshot table's last one, as far as they parse.
    ///
    /// There is nothing, or what is left of an older table, unless the header counts fewer snapshots than there are.
    func entriesBehindSnapshotTable<S: Storage & ~Copyable>(
        reading storage: borrowing S
    ) throws(QCOW2Error) -> [(entry: SnapshotTableEntry, offset: HostOffset)] {
        var found: [(entry: SnapshotTableEntry, offset: HostOffset)] = []
        let start = header.snapshotTableOffset.rawValue
        // Only behind a table that was read to its end.
        guard header.snapshotCount > 0, snapshots.count + unusableSnapshots.count == Int(header.snapshotCount),
            geometry.isAligned(header.snapshotTableOffset)
        else { return found }
        // Safe: the table was read, so it lies in the file.
        let base = start + (snapshotTableByteCount + 7) / 8 * 8
        let tableEnd = start + geometry.clusterCount(forBytes: snapshotTableByteCount) * geometry.clusterSize
        let end = min(tableEnd, bounds.byteCount)
        guard base < end else { return found }
        let bytes = try storage.readBytes(Int(end - base), at: HostOffset(base))
        var position = base
        while position < end {
            let offset = HostOffset(position)
            let rest = bytes.span.extracting(Int(position - base)..<bytes.count)
            guard let entry = try? SnapshotTableEntry(decoding: rest, at: offset, in: geometry),
                entry.l1EntryCount > 0, entry.l1TableOffset.rawValue < bounds.byteCount
            else { break }
            found.append((entry, offset))
            let extraByteCount = Int(SnapshotTableEntry.Layout.extraDataSize.load(from: rest))
            let byteCount =
                SnapshotTableEntry.Layout.fixedByteCount + extraByteCount + entry.id.count + entry.name.count
            position += UInt64((byteCount + 7) / 8 * 8)
        }
        return found
    }
}
