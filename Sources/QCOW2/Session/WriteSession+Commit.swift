// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// Plans the commit of everything pending, without writing anything.
    ///
    /// Section "6.3 Commit method A". What changes goes into clusters that are free in the committed state: L2 tables,
    /// the L1 table, refcount blocks, and the refcount table.
    ///
    /// - Returns: The update, and the session as it will be when the update is on the disk; this one stays what it is.
    func planned<S: Storage & ~Copyable>(
        _ opened: OpenedImage, from storage: borrowing S
    ) throws(QCOW2Error) -> (update: MetadataUpdate, next: WriteSession) {
        var next = self
        var header = opened.header
        var written = try next.moveTables(&header, from: storage)
        written += try next.moveRefcounts(&header, from: storage)
        written.sort { $0.offset < $1.offset }
        for table in written {
            let end = table.offset.saturating(adding: UInt64(table.bytes.count))
            next.fileByteCount = max(next.fileByteCount, end.rawValue)
        }
        next.hasUnflushedData = false
        let update = MetadataUpdate(
            oldFileByteCount: fileByteCount, tables: written, refcounts: nil, header: header,
            entries: opened.entries, snapshotTableByteCount: opened.snapshotTableByteCount)
        assert(isSound(update, next))
        return (update, next)
    }

    /// Whether a finished plan keeps the shadow commit's promise: what it writes before the switch was free, nothing
    /// that changed is left out, and what the old state alone uses is given back only afterwards.
    ///
    /// No content of a file can reach this.
    private func isSound(_ update: MetadataUpdate, _ next: WriteSession) -> Bool {
        let targets = update.tables.compactMap { geometry.run(at: $0.offset, byteCount: UInt64($0.bytes.count)) }
        let newTables = [
            geometry.run(
                at: update.header.l1TableOffset, byteCount: UInt64(tables.l1.count * L1Entry.byteCount)),
            geometry.run(
                at: update.header.refcountTableOffset,
                byteCount: UInt64(update.header.refcountTableClusterCount) * geometry.clusterSize),
        ]
        return targets.areAscendingAndDisjoint
            && update.tables.allSatisfy { $0.bytes.count > 0 && $0.bytes.count % geometry.clusterByteCount == 0 }
            && next.tables.dirtyCount == 0 && next.refcounts.dirtyCount == 0
            // What the new header points to was written, or stays where it was.
            && newTables.allSatisfy { run in run.map { targets.contains($0) || tables.dirtyCount == 0 } ?? true }
            && next.released.allSatisfy { run in !targets.contains { $0.first < run.end && run.first < $0.end } }
    }

    /// Finds places for the L2 tables that changed, and for the L1 table.
    private mutating func moveTables<S: Storage & ~Copyable>(
        _ header: inout Header, from storage: borrowing S
    ) throws(QCOW2Error) -> [(bytes: [UInt8], offset: HostOffset)] {
        let dirty = tables.dirtyTables
        guard !dirty.isEmpty else { return [] }
        var written: [(bytes: [UInt8], offset: HostOffset)] = []
        let run = try allocate(UInt64(dirty.count), from: storage)
        for (position, index) in dirty.enumerated() {
            if let old = tables.l1[index].l2Table {
                // A table that snapshots share goes on without this reference; what it refers to keeps its counts, as
                // the copy refers to the same.
                try release(geometry.cluster(at: old), isData: false, from: storage)
            }
            let offset = geometry.offset(ofCluster: run.first + UInt64(position))
            written.append((tables.move(index, to: offset), offset))
        }
        let byteCount = tables.l1.count * L1Entry.byteCount
        if let old = geometry.run(at: header.l1TableOffset, byteCount: UInt64(byteCount)) {
            for cluster in old.first..<old.end { try release(cluster, isData: false, from: storage) }
        }
        let l1Run = try allocate(geometry.clusterCount(forBytes: UInt64(byteCount)), from: storage)
        header.l1TableOffset = geometry.offset(ofCluster: l1Run.first)
        let padding = Int(l1Run.count) * geometry.clusterByteCount - byteCount
        written.append(
            (L1Entry.encodeTable(tables.l1) + repeatElement(UInt8(0), count: padding), header.l1TableOffset))
        return written
    }

    /// Finds places for the refcount blocks that changed, and for the refcount table.
    ///
    /// Each place is a refcount that changes, perhaps in another block, so this goes on until no block is left.
    private mutating func moveRefcounts<S: Storage & ~Copyable>(
        _ header: inout Header, from storage: borrowing S
    ) throws(QCOW2Error) -> [(bytes: [UInt8], offset: HostOffset)] {
        let oldTable = geometry.run(
            at: header.refcountTableOffset, byteCount: UInt64(header.refcountTableClusterCount) * geometry.clusterSize)
        if let oldTable {
            for cluster in oldTable.first..<oldTable.end { try release(cluster, isData: false, from: storage) }
        }
        var places: [Int: HostOffset] = [:]
        var table = ClusterRun(first: 0, count: 0)
        while true {
            let dirty = refcounts.dirtyBlocks.filter { places[$0] == nil }
            if !dirty.isEmpty {
                let run = try allocate(UInt64(dirty.count), from: storage)
                for (position, index) in dirty.enumerated() {
                    places[index] = geometry.offset(ofCluster: run.first + UInt64(position))
                    guard index < refcounts.blockOffsets.count, let old = refcounts.blockOffsets[index] else {
                        continue
                    }
                    try release(geometry.cluster(at: old), isData: false, from: storage)
                }
                continue
            }
            let needed = max(
                UInt64(header.refcountTableClusterCount),
                geometry.clusterCount(forBytes: UInt64(refcounts.tableEntryCount * RefcountTableEntry.byteCount)))
            if table.count >= needed { break }
            guard needed * geometry.clusterSize <= ImageGeometry.maximumRefcountTableByteCount else {
                throw QCOW2Error(.limitExceeded, "The refcount table would be larger than 8 MiB.")
            }
            for cluster in table.first..<table.end { try release(cluster, isData: false, from: storage) }
            table = try allocate(needed, from: storage)
        }
        var written = places.map { (bytes: refcounts.move($0.key, to: $0.value), offset: $0.value) }
        header.refcountTableOffset = geometry.offset(ofCluster: table.first)
        header.refcountTableClusterCount = UInt32(table.count)
        written.append(
            (refcounts.encodeTable(byteCount: Int(table.count) * geometry.clusterByteCount), header.refcountTableOffset)
        )
        return written
    }
}
