// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Checks an image: every invariant, over the active tree and all snapshots.
///
/// Where an operation that writes stops at the first contradiction, this notes it and goes on. The order is that of the
/// file's structure: header and tables, L1 tables, then windows of clusters in which L2 tables, refcounts and copied
/// flags are compared.
struct Checker {
    let subject: ImageReading
    let claims: TableClaims
    private(set) var report = CheckReport()
    var tally: ReferenceTally
    var refcounts: RefcountReader
    /// The index after the last cluster in use.
    var end: UInt64 = 1
    var work: WorkMeter
    let sink: FindingSink
    private let options: CheckOptions

    var geometry: ImageGeometry { subject.geometry }

    /// Reads all but L2 tables and refcounts.
    init<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ options: CheckOptions, _ sink: FindingSink
    ) throws(QCOW2Error) {
        var subject = try ImageReading(reading: storage, sink)
        claims = TableClaims(subject, sink)
        work = WorkMeter(options.progress)
        let mappings = try MappingIndex(subject, claims, reading: storage, sink, &work)
        if !mappings.isComplete { subject.isComplete = false }
        self.subject = subject
        self.sink = sink
        self.options = options
        tally = ReferenceTally(
            subject, claims, mappings, isDeep: options.decodesCompressedClusters && !subject.hasDataFile)
        refcounts = RefcountReader(subject.refcounts, readsAhead: true)
    }

    /// Checks everything else.
    mutating func run<S: Storage & ~Copyable>(reading storage: borrowing S) throws(QCOW2Error) {
        try checkActiveL1(storage)
        work.expect(UInt64(tally.l2Tables.count) * geometry.clusterSize)
        try tally.findStrays(reading: storage, &work)
        for range in tally.windows(laneByteCount: 2, budget: options.memoryBudget).ranges {
            if try check(range, CheckWindow<UInt16>.self, storage) { continue }
            for range in windows(of: range, laneByteCount: 4).ranges {
                if try check(range, CheckWindow<UInt32>.self, storage) { continue }
                for range in windows(of: range, laneByteCount: 8).ranges {
                    guard try check(range, CheckWindow<UInt64>.self, storage) else {
                        throw .overflow("number of references")
                    }
                }
            }
        }
        try checkPastEnd(storage)
        try checkBehindSnapshotTable(storage)
        finish()
    }

    private mutating func finish() {
        report.isComplete = subject.isComplete
        report.totalClusterCount = geometry.clusterCount(forBytes: subject.header.size)
        let statistics = tally.statistics
        report.allocatedClusterCount = statistics.allocatedCount
        report.fragmentedClusterCount = statistics.fragmentedCount
        report.compressedClusterCount = statistics.compressedCount
        report.imageEndOffset = geometry.offset(ofCluster: end)
        report.checkedSnapshotCount = subject.snapshots.count
        report.decodedClusterCount = tally.decodedClusterCount
        report.tallies = sink.tallies.map(CheckReport.Tally.init)
    }

    /// Checks the active L1 table's copied flags, and what lies behind the disk.
    ///
    /// Invariants I-21, I-24 and I-29.
    private mutating func checkActiveL1<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        let tree = subject.trees[0]
        let (geometry, sink, l2Tables) = (geometry, sink, tally.l2Tables)
        let diskEnd = geometry.l1EntryCount(forDiskSize: subject.header.size)
        // Small pieces: tables are often far from each other.
        var refcounts = RefcountReader(subject.refcounts, pieceCount: 256)
        var hint = 0
        var behindDisk: UInt64 = 0
        let stretches = L1Stretches([subject.l1Parts[0]])
        try stretches.forEachEntry(reading: storage, &work) { (_, index, entry) throws(QCOW2Error) in
            guard let offset = entry.l2Table, let found = l2Tables.index(of: offset, near: hint) else { return }
            hint = found + 1
            if UInt64(index) >= diskEnd { behindDisk += 1 }
            let stored = try refcounts.refcount(of: geometry.cluster(at: offset), from: storage)
            let place = tree.offset.saturating(adding: UInt64(index * L1Entry.byteCount))
            if entry.isCopied != (stored == 1) {
                sink.add(
                    .copiedFlagL1, at: place, in: tree.name, index: UInt64(index),
                    "Entry \(index) of the \(tree.name) has the copied flag \(entry.isCopied ? "set" : "clear"), "
                        + "but the refcount of its L2 table is \(stored).")
            }
            if entry.isCopied, l2Tables[found].newWeight > 0 {
                sink.add(
                    .snapshotWritable, at: place, in: tree.name, index: UInt64(index),
                    "Entry \(index) of the \(tree.name) has the copied flag, but a snapshot uses its L2 table, "
                        + "too: the next guest write there changes the snapshot.")
            }
        }
        guard behindDisk > 0 else { return }
        sink.add(
            .activeVMState, at: tree.offset, in: tree.name, index: diskEnd,
            "\(behindDisk) entries of the \(tree.name) lie behind the disk's end: VM state, or what is left of it.")
    }

    /// Reads those L2 tables again that may refer to a range's clusters.
    mutating func forEachTable<S: Storage & ~Copyable>(
        near range: Range<UInt64>, _ storage: borrowing S, where isWanted: (_ index: Int) -> Bool,
        _ body: (_ index: Int, _ bytes: Span<UInt8>, L2TableScan) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        try tally.forEachTable(near: range, reading: storage, &work, where: isWanted, body)
    }

    /// Counts what snapshots refer to.
    mutating func countSnapshots<Lane, S: Storage & ~Copyable>(
        in window: inout CheckWindow<Lane>, _ storage: borrowing S
    ) throws(QCOW2Error) -> Bool {
        try tally.count(.snapshots, in: &window, reading: storage, nil, &work) != nil
    }

    /// Parts of a range, for wider lanes.
    func windows(of range: Range<UInt64>, laneByteCount: Int) -> ClusterWindows {
        ClusterWindows(OccupiedClusters(range), laneByteCount: laneByteCount, budget: options.memoryBudget)
    }
}
