// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Decides what a repair changes, and plans it as one update, without writing anything.
///
/// Section "6.9 Check and repair".
///
/// Fresh clusters are free by the references that were found and by the stored refcounts; and lie behind everything
/// else as long as not all references are known. So no state that a crash leaves is worse than the one before.
struct RepairPlanner {
    private let checker: Checker
    private let scope: RepairScope
    private let options: WriteOptions
    private let dropsUnreadableSnapshots: Bool
    private(set) var report: RepairReport
    private var blocks: BlockSurvey
    private var flags: ActiveFlags

    private var subject: ImageReading { checker.subject }
    private var geometry: ImageGeometry { subject.geometry }

    init(_ checker: Checker, _ scope: RepairScope, _ options: WriteOptions, dropsUnreadableSnapshots: Bool) {
        self.checker = checker
        self.scope = scope
        self.options = options
        // Freeing leaks is no reason to give anything up.
        self.dropsUnreadableSnapshots = dropsUnreadableSnapshots && scope == .all
        report = RepairReport(before: checker.report)
        blocks = BlockSurvey(describing: checker.subject.fileClusterCount, in: checker.subject.refcounts)
        flags = ActiveFlags(checker.tally.l2Tables)
    }

    /// Whether all references are known, so that what has none can be freed.
    var knowsAllReferences: Bool {
        // Repairing everything takes a promise of bitmaps back that aren't found; freeing leaks would only lose them.
        (scope == .all || count(.bitmapsMissing) == 0) && subject.isComplete
            && FindingRule.allCases.allSatisfy { !$0.hidesReferences || count($0) == 0 }
    }

    /// Whether clusters would be freed that have a refcount, but no reference.
    var freesLeaks: Bool {
        guard knowsAllReferences, !subject.hasDataFile, count(.refcountTooHigh) > 0 else { return false }
        return count(.refcountOverflow) == 0 && (scope == .all || count(.refcountTooLow) == 0)
    }

    private var policy: RepairCounts.Policy {
        switch scope {
        case .leaks: knowsAllReferences ? .lowering : .keeping
        case .all: knowsAllReferences ? .exact : .raising
        }
    }

    private func count(_ rule: FindingRule) -> UInt64 { report.before.count(of: rule.code) }

    /// Whether copied flags are made to agree with the new refcounts.
    private var repairsFlags: Bool {
        // The L1 tables of snapshots follow moved L2 tables, and the snapshot table follows those.
        guard subject.canMoveL2Tables, !keepsSnapshotTable else { return false }
        if scope == .all { return true }
        // Leaks alone are no reason to trust the rest.
        return FindingRule.allCases.allSatisfy { rule in
            rule.severity < .corruption || rule.isAboutFlags || rule.isMark || count(rule) == 0
        }
    }

    /// Whether the snapshot table stays as it is: it couldn't be read to its end, and nothing may be dropped.
    private var keepsSnapshotTable: Bool {
        !dropsUnreadableSnapshots && subject.snapshots.count + subject.unusableSnapshots.count < entryCount
    }

    /// Where a snapshot table ends at least that stays as it is although not all of its entries could be read.
    ///
    /// Other implementations read zeros behind the end of the file as empty entries. Anything else there, and they
    /// couldn't open the image any more.
    private var claimedSnapshotTableEnd: UInt64? {
        let start = subject.header.snapshotTableOffset.rawValue
        let readCount = subject.snapshots.count + subject.unusableSnapshots.count
        guard keepsSnapshotTable, entryCount <= Header.maximumSnapshotCount, start < subject.bounds.byteCount else {
            return nil
        }
        let unreadByteCount = UInt64(entryCount - readCount) * UInt64(SnapshotTableEntry.Layout.fixedByteCount)
        return start + (subject.snapshotTableByteCount + 7) / 8 * 8 + unreadByteCount
    }

    /// The snapshot table's entries, whether they can be read or not; also those behind the most that are read.
    private var entryCount: Int { Int(subject.header.snapshotCount) }

    /// Whether nothing is wrong afterwards.
    private var leavesNothing: Bool {
        guard knowsAllReferences, subject.canMoveL2Tables else { return false }
        return FindingRule.allCases.allSatisfy { rule in
            if count(rule) == 0 || rule.severity <= .notice || rule.isMark { return true }
            return scope == .all ? rule.isRepairable : rule.severity == .leak || rule.isAboutFlags
        }
    }

    /// Plans the repair.
    ///
    /// - Returns: The update; `nil` if there is nothing to do.
    /// - Throws: ``QCOW2Error/Code/limitExceeded`` for more references than refcounts can count, and
    ///   ``QCOW2Error/Code/unsupported`` for what this library doesn't write.
    mutating func plan<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> MetadataUpdate? {
        guard !subject.hasDataFile else {
            throw QCOW2Error(.unsupported, "An image that keeps its data in an external data file can't be repaired.")
        }
        if scope == .leaks, count(.refcountTooLow) > 0 {
            throw QCOW2Error(
                .needsRepair,
                "Some refcounts are too low, so nothing is freed; repair everything, with qsnap check --repair all.")
        }
        if count(.refcountOverflow) > 0 {
            throw QCOW2Error(
                .limitExceeded,
                "Some clusters have more references than \(geometry.refcountBits)-bit refcounts can count, so the "
                    + "refcounts can't be repaired.")
        }
        guard !checker.tally.pastEnd.isCut else {
            throw QCOW2Error(.unsupported, "Too many entries point past the end of the file to repair the image.")
        }
        var counts = RepairCounts(checker.tally, policy, budget: options.memoryBudget)
        try survey(&counts, storage, &work)
        decide()
        guard report.hasChanges else { return nil }

        let state = ImageState(repairing: subject, keepsUnusableSnapshots: !dropsUnreadableSnapshots)
        var proposal = Proposal(keeping: state)
        proposal.repair = Proposal.Repair(
            clearedFeatures: report.clearedMarks, rewritesSnapshotTable: report.rewritesSnapshotTable,
            keepsSnapshotTable: keepsSnapshotTable, setsFlags: repairsFlags, movesActiveL1: report.separatesActiveL1)
        var allocator = ClusterAllocator(blocks, in: geometry, avoiding: checker.tally.pastEnd.counts.keys.sorted())
        if !knowsAllReferences { allocator.takeOnlyBehind(subject.fileClusterCount) }
        if let end = claimedSnapshotTableEnd { allocator.takeOnlyBehind(geometry.clusterCount(forBytes: end)) }
        let update = try UpdatePlanner.planRepair(
            proposal, from: state, checker.tally.l2Tables.unchanged, flags, setsFlags: repairsFlags, blocks, counts,
            allocator, reading: storage, &work)
        try checkEnd(of: update)
        return update
    }

    /// Refuses an update that goes far behind the end of the file, because garbage in the refcount table describes
    /// clusters there: the image would be no better, and the file enormous.
    private func checkEnd(of update: MetadataUpdate) throws(QCOW2Error) {
        let places = update.tables.map(\.offset.rawValue) + (update.refcounts?.targets.map(\.offset.rawValue) ?? [])
        let room = max(update.oldFileByteCount, 64 << 20)
        guard let last = places.max(), last > update.oldFileByteCount, last - update.oldFileByteCount > room else {
            return
        }
        throw QCOW2Error(
            .unsupported,
            "The refcount table describes clusters far behind the end of the file, so repairing it would make the "
                + "file more than \(last) bytes long; nothing was changed.",
            at: subject.header.refcountTableOffset)
    }

    /// Finds what refcounts and flags become.
    private mutating func survey<S: Storage & ~Copyable>(
        _ counts: inout RepairCounts, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var (blocks, flags, report) = (blocks, flags, report)
        let (geometry, isExact) = (geometry, policy == .exact)
        try counts.forEachPiece(reading: storage, &work) { piece, old, new in
            var (raised, lowered): (UInt64, UInt64) = (0, 0)
            for index in 0..<piece.count {
                raised &+= new[index] > old[index] ? 1 : 0
                lowered &+= new[index] < old[index] ? 1 : 0
            }
            report.raisedRefcountCount += raised
            report.loweredRefcountCount += lowered
            blocks.note(piece, old, new, hasChanges: raised + lowered > 0)
        } afterWindow: { (window, tally, work) throws(QCOW2Error) in
            // A block that shares its cluster moves away, and the refcount table always does.
            for (index, offset) in tally.subject.refcounts.blockOffsets.enumerated() {
                guard let offset, window.covers(geometry.cluster(at: offset)) else { continue }
                guard window.count(geometry.cluster(at: offset)) > 1 else { continue }
                blocks.noteChange(index)
                if isExact { window.removeReference(to: geometry.cluster(at: offset)) }
            }
            for table in tally.subject.tables where table.kind == .refcountTable && isExact {
                for cluster in table.run.first..<table.run.end { window.removeReference(to: cluster) }
            }
            flags.notePrivate(tally.l2Tables, window, geometry)
            let l2Tables = tally.l2Tables
            try tally.forEachTable(near: window.range, reading: storage, &work, where: { l2Tables[$0].isActive }) {
                index, bytes, _ in
                flags.note(index, bytes, window, geometry)
            }
        }
        let l2Tables = checker.tally.l2Tables
        var hint = 0
        try L1Stretches([subject.l1Parts[0]]).forEachEntry(reading: storage, &work) { (_, _, entry) in
            guard let offset = entry.l2Table, let found = l2Tables.index(of: offset, near: hint) else { return }
            hint = found + 1
            if entry.isCopied != flags.isPrivate[found] { report.changesL1Table = true }
        }
        (self.blocks, self.flags, self.report) = (blocks, flags, report)
    }

    private mutating func decide() {
        report.changesL1Table = report.changesL1Table && repairsFlags
        report.changedL2TableCount = repairsFlags ? flags.changes.count : 0
        let marks = subject.header.incompatibleFeatures.intersection([.dirty, .corrupt])
        if leavesNothing { report.clearedMarks = marks }
        guard scope == .all else { return }
        report.rebuildsRefcountTable =
            count(.refcountTableInvalid) + count(.refcountTableEntryInvalid) + count(.refcountBlockTwice) > 0
        report.clearsBitmapsPromise = count(.bitmapsMissing) > 0
        report.separatesActiveL1 = checker.claims.sharesActiveL1 && subject.canMoveL2Tables
        decideSnapshotTable()
    }

    /// Entries that can't be used are all that is left of what they refer to, so they stay, unless they are to be
    /// dropped; and with them the table, if it isn't known where it ends.
    private mutating func decideSnapshotTable() {
        let unreadableCount = entryCount - subject.snapshots.count
        if dropsUnreadableSnapshots {
            report.droppedSnapshotCount = unreadableCount
            report.rewritesSnapshotTable = subject.needsSnapshotTable || unreadableCount > 0
        } else {
            report.keptUnreadableSnapshotCount = unreadableCount
            report.rewritesSnapshotTable = subject.needsSnapshotTable && !keepsSnapshotTable
        }
    }
}
