// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Carries out an update: the only code in the library that changes an image.
    ///
    /// Section "6.3 Commit method A".
    ///
    /// Two flushes. A crash before the header's sector is on the disk leaves the old state, with bytes in clusters
    /// that are free there; a crash after it leaves the new state, perhaps with free clusters not yet given back.
    ///
    /// Another program that writes at the same time is noticed if it changed the file's length, the header, or one of the
    /// tables in the ``CommitBasis``, which are compared right before the switch; and before anything is written, the
    /// length and the header.
    ///
    /// - Parameters:
    ///   - update: What to write.
    ///   - basis: What the update was planned from.
    ///   - discarding: Whether freed space is given back.
    ///   - work: Progress.
    /// - Throws: ``QCOW2Error/Code/inputOutput``, or ``QCOW2Error/Code/inUse`` when another program has changed the file.
    ///   The image is as before, and the file is cut back to its old length; not where another program may have put
    ///   something of its own behind it.
    ///   Only if writing or flushing the header's sector failed, and putting the old one back failed, too, the image
    ///   continues with what the file now reads as, and the next commit settles that first.
    mutating func commit(
        _ update: consuming MetadataUpdate, from basis: CommitBasis, discarding: Bool, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        // A session was taken out by whoever commits it, or ended; the update knows nothing of what another one changed.
        guard session == nil else {
            throw QCOW2Error(.unsupported, "Guest writes to '\(storage.name)' are pending; flush them first.")
        }
        guard try storage.byteCount() == update.oldFileByteCount else { throw .changed("length", of: storage.name) }
        try settle()
        // Before anything is written, so that a failure to read changes nothing.
        guard try storage.readBytes(basis.sector.count, at: HostOffset(0)) == basis.sector else {
            throw .changed("header", of: storage.name)
        }
        var sector = basis.sector
        var sectorSpan = sector.mutableSpan
        update.header.encode(into: &sectorSpan)
        assert(sector.differsFromSectorOnlyWhereACommitMay(basis.sector))

        let written: RefcountWriter?
        var cutsTail = true
        do throws(QCOW2Error) {
            written = try prepare(&update, &work)
            // ORDER: nothing may refer to the new tables before they are on the disk.
            do throws(QCOW2Error) { try storage.flush() } catch {
                hasFailedFlush = true
                throw error
            }
            try work.checkForWish()
            if let change = try basis.change(in: storage, writtenUpTo: update.end(written, header.geometry)) {
                cutsTail = !change.mayUseTail
                throw .changed(change.what, of: storage.name)
            }
        } catch {
            // The old state is untouched. Failing to give back what was appended to the file costs only space.
            if cutsTail { try? storage.truncate(toByteCount: update.oldFileByteCount) }
            throw error
        }
        do throws(QCOW2Error) {
            try storage.write(sector.span, at: HostOffset(0))
            // ORDER: nothing of the old state may be reused before the switch is on the disk.
            try storage.flush()
        } catch {
            hasFailedFlush = true
            goBack(to: basis.sector, update.oldFileByteCount)
            throw error
        }
        opened = OpenedImage(
            header: update.header, extensions: opened.extensions, entries: update.entries,
            snapshotTableByteCount: update.snapshotTableByteCount, headerSector: sector)
        if discarding, let written {
            giveBack(written.freed.runs, fileByteCount: written.end * header.geometry.clusterSize, work)
        }
    }

    /// After the switch failed: nobody knows which of the two whole states the disk holds, so this puts the old one
    /// there, for an error to mean that nothing changed.
    ///
    /// If that fails as well, the image continues with what the file reads as.
    private mutating func goBack(to oldSector: [UInt8], _ oldFileByteCount: UInt64) {
        unsettledSector = oldSector
        try? settle()
        guard unsettledSector != nil else {
            // The old state is on the disk, and what was appended belongs to none.
            try? storage.truncate(toByteCount: oldFileByteCount)
            return
        }
        if let found = try? OpenedImage(reading: storage) {
            opened = found
            unsettledSector = found.headerSector
        }
    }

    /// After a commit whose outcome is unknown: puts the state that this value describes on the disk, one sector that
    /// both states allow, before anything else is written.
    mutating func settle() throws(QCOW2Error) {
        guard let sector = unsettledSector else { return }
        try storage.write(sector.span, at: HostOffset(0))
        // ORDER: what follows may overwrite clusters of the state that lost.
        try storage.flush()
        unsettledSector = nil
    }

    /// Writes everything that the new header will point to, into clusters that the old state doesn't use.
    private mutating func prepare(
        _ update: inout MetadataUpdate, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> RefcountWriter? {
        let geometry = header.geometry
        var writer = SequentialWriter(geometry)
        let blockCount = update.refcounts?.targets.count ?? 0
        work.expect(UInt64(update.movedTables.count + blockCount) * geometry.clusterSize)
        let scan = L2TableScan(geometry: geometry, fileByteCount: update.oldFileByteCount)
        for table in update.movedTables {
            try writer.add(geometry.clusterByteCount, at: table.target, to: &storage) {
                (bytes, storage) throws(QCOW2Error) in
                try storage.read(into: &bytes, at: table.source)
                scan.apply(table.flags, to: &bytes)
            }
            try work.advance(by: geometry.clusterSize)
        }
        for table in update.tables {
            try work.checkForWish()
            try writer.add(table.bytes, at: table.offset, to: &storage)
        }
        // Taken out of the update, so that what it counted with is not there twice.
        var refcounts: RefcountWriter?
        if let plan = update.refcounts.take() { refcounts = RefcountWriter(plan) }
        try refcounts?.write(with: &writer, to: &storage, &work)
        try writer.finish(&storage)
        return refcounts
    }

    /// Gives the space of freed clusters back to the file system.
    ///
    /// The operation is done by then, so a failure here costs only space and is no error.
    private mutating func giveBack(_ freed: [ClusterRun], fileByteCount: UInt64, _ work: WorkMeter) {
        let geometry = header.geometry
        for (index, run) in freed.enumerated() {
            if index % 64 == 0, work.isCancelled { return }
            let offset = geometry.offset(ofCluster: run.first)
            guard offset.rawValue < fileByteCount else { break }
            try? storage.punchHole(at: offset, byteCount: run.count << UInt64(geometry.clusterBits))
        }
        if let length = try? storage.byteCount(), length > fileByteCount {
            try? storage.truncate(toByteCount: fileByteCount)
        }
    }
}

extension MetadataUpdate {
    /// The end of all that preparing the update may have written.
    fileprivate func end(_ refcounts: RefcountWriter?, _ geometry: ImageGeometry) -> UInt64 {
        // What the new state uses has a refcount there; without a writer, everything is among the tables.
        let ends = tables.map { $0.offset.saturating(adding: UInt64($0.bytes.count)).rawValue }
        return max(oldFileByteCount, ends.max() ?? 0, (refcounts?.end ?? 0) * geometry.clusterSize)
    }
}
