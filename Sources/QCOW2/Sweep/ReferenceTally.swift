// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts all references of an image as it is: the sweep's client for check and repair.
///
/// Section "3.3 The multiplicity rule".
struct ReferenceTally: Sendable {
    let subject: ImageReading
    private(set) var sweep: ReferenceSweep
    private(set) var statistics = MappingStatistics()
    /// References to clusters past the end of the file, from entries that shouldn't be.
    private(set) var pastEnd = PastEndReferences()
    private(set) var decodedClusterCount: UInt64 = 0
    /// What of the file's clusters has to be looked at.
    private(set) var occupied: OccupiedClusters
    /// By the L2 table's index, the index of some L1 entry that points to it.
    private let firstL1Indices: [UInt32]
    private let inspection: L2EntryInspection
    private let claims: TableClaims
    private let isDeep: Bool

    private var geometry: ImageGeometry { subject.geometry }
    var l2Tables: L2Tables { sweep.tables }

    init(_ subject: ImageReading, _ claims: TableClaims, _ mappings: MappingIndex, isDeep: Bool) {
        self.subject = subject
        self.claims = claims
        self.isDeep = isDeep
        firstL1Indices = mappings.firstL1Indices
        // Where clusters are in another file, no entry is plain.
        sweep = ReferenceSweep(
            mappings.l2Tables, in: subject.geometry, fileByteCount: subject.hasDataFile ? 0 : subject.bounds.byteCount)
        inspection = L2EntryInspection(
            geometry: subject.geometry, bounds: subject.bounds, hasDataFile: subject.hasDataFile)
        occupied = OccupiedClusters(
            subject.refcounts, subject.tables, subject.singles, mappings.l2Tables, upTo: subject.countedClusterCount)
    }

    /// Finds what lies apart from all that has a refcount.
    mutating func findStrays<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        guard !subject.hasDataFile else { return }
        let end = subject.countedClusterCount
        if try sweep.findStrays(outside: &occupied, upTo: end, reading: storage, &work) { occupied.finish(upTo: end) }
    }

    /// The ranges of clusters to count at once, for lanes of some width.
    func windows(laneByteCount: Int, budget: Int) -> ClusterWindows {
        ClusterWindows(occupied, laneByteCount: laneByteCount, budget: budget)
    }

    /// What of the references to count.
    enum Part {
        case all
        /// Only what snapshots refer to, directly or through their trees.
        case snapshots
    }

    /// Counts the references to a window's clusters.
    ///
    /// - Returns: The L2 tables of the active tree with a copied flag that contradicts the stored refcounts; `nil` if
    ///   the lanes were too narrow.
    /// - Throws: ``QCOW2Error/Code/inputOutput``, or ``QCOW2Error/Code/cancelled``.
    mutating func count<Lane, S: Storage & ~Copyable>(
        _ part: Part, in window: inout CheckWindow<Lane>, reading storage: borrowing S, _ sink: FindingSink?,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) -> [Int]? {
        for table in subject.tables where part == .all || table.kind == .snapshotL1 || table.kind == .snapshotTable {
            window.add(table.run, 1)
        }
        if part == .all {
            window.add(subject.singles.refcountBlocks, 1)
            window.add(subject.singles.bitmapData, 1)
        }
        var client = Client(self, window: CheckWindow<Lane>(0..<0), part, sink)
        swap(&client.window, &window)
        defer { swap(&client.window, &window) }
        guard try sweep.cover(&client, reading: storage, &work) else { return nil }
        (statistics, pastEnd) = (client.statistics, client.pastEnd)
        if isDeep, let sink, !client.compressed.isEmpty {
            decodedClusterCount += try CompressedChecker(subject).decode(
                client.compressed, from: storage, sink, &work)
        }
        return client.window.hasOverflowed ? nil : client.suspects
    }

    private struct Client<Lane: FixedWidthInteger & UnsignedInteger & Sendable>: SweepClient {
        var window: CheckWindow<Lane>
        var statistics: MappingStatistics
        var pastEnd: PastEndReferences
        var suspects: [Int] = []
        /// Compressed clusters that are to be decompressed.
        var compressed: [(cluster: CompressedCluster, place: HostOffset)] = []
        private let tally: ReferenceTally
        private let part: Part
        private let sink: FindingSink?

        init(_ tally: ReferenceTally, window: CheckWindow<Lane>, _ part: Part, _ sink: FindingSink?) {
            self.window = window
            self.tally = tally
            self.part = part
            self.sink = sink
            statistics = tally.statistics
            pastEnd = tally.pastEnd
        }

        var range: Range<UInt64> { window.range }

        private func weight(of table: L2Table) -> Lane {
            // Checked for all tables when their own clusters were added.
            CheckWindow<Lane>.weight(UInt64(part == .all ? table.oldWeight : table.newWeight)) ?? 0
        }

        mutating func addKnown(_ sweep: ReferenceSweep) -> Bool {
            guard window.addTables(sweep, onlyNew: part == .snapshots) else { return false }
            for index in 0..<sweep.tables.count {
                guard let runs = sweep.contents.keptRuns(of: index), !runs.isEmpty else { continue }
                let table = sweep.tables[index]
                let isFlagged = sweep.contents[index].flags.isAnySet
                if window.addRuns(runs, weight(of: table), flag: isFlagged), table.isActive { suspects.append(index) }
            }
            return true
        }

        mutating func add(
            _ index: Int, _ bytes: Span<UInt8>, isFirst: Bool, _ sweep: ReferenceSweep
        ) throws(QCOW2Error) -> L2TableFindings {
            let table = sweep.tables[index]
            let (tally, sink) = (tally, isFirst ? sink : nil)
            let fileClusterCount = tally.subject.countedClusterCount
            var foundPastEnd: [ClusterRun] = []
            var compressed: [(cluster: CompressedCluster, place: HostOffset)] = []
            let checked = try window.addTable(bytes, weight(of: table), sweep.scan) {
                (entry, position) throws(QCOW2Error) in
                let place = tally.place(index, position / tally.geometry.l2EntryByteCount)
                let target = tally.inspection.target(of: entry, in: bytes, place, sink)
                guard isFirst, let run = target.run else { return target }
                if run.end > fileClusterCount { foundPastEnd.append(run) }
                if let cluster = target.compressed {
                    tally.checkPlace(of: cluster, run, place.offset, sink)
                    if tally.isDeep { compressed.append((cluster, place.offset)) }
                }
                return target
            }
            if table.isActive, checked.hasWrongFlag { suspects.append(index) }
            guard isFirst else { return checked.findings }
            statistics.add(checked.statistics, times: UInt64(table.oldWeight &- table.newWeight))
            for run in foundPastEnd { pastEnd.add(run, UInt64(table.oldWeight), from: fileClusterCount) }
            self.compressed += compressed
            return checked.findings
        }
    }

    /// Notes compressed bytes that lie in metadata.
    private func checkPlace(of cluster: CompressedCluster, _ run: ClusterRun, _ place: HostOffset, _ sink: FindingSink?)
    {
        guard let sink else { return }
        let owner = claims.owner(of: run)
        let isInL2Table = (run.first..<run.end).contains {
            sweep.tables.index(of: geometry.offset(ofCluster: $0), near: 0) != nil
        }
        // The header's cluster is a finding by itself.
        guard isInL2Table || owner.map({ $0.run.first > 0 }) ?? false else { return }
        sink.add(
            .dataInMetadata, at: place, in: "L2 table",
            "Compressed bytes at \(cluster.offset) lie in \(owner.map { "the " + $0.name } ?? "an L2 table").")
    }

    /// Reads those L2 tables again that may refer to a window's clusters.
    mutating func forEachTable<S: Storage & ~Copyable>(
        near range: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter,
        where isWanted: (_ index: Int) -> Bool,
        _ body: (_ index: Int, _ bytes: Span<UInt8>, L2TableScan) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let scan = sweep.scan
        try sweep.forEachTable(near: range, reading: storage, &work, where: isWanted) {
            (index, bytes) throws(QCOW2Error) in try body(index, bytes, scan)
        }
    }

    /// The place of an entry of an L2 table, for messages.
    func place(_ table: Int, _ index: Int) -> L2EntryInspection.Place {
        L2EntryInspection.Place(
            tableOffset: sweep.tables[table].offset, position: index * geometry.l2EntryByteCount,
            l1Index: firstL1Indices[table], isActive: sweep.tables[table].isActive)
    }

    /// The guest offset that an entry maps.
    func guestOffset(_ place: L2EntryInspection.Place) -> HostOffset {
        geometry.offset(ofCluster: inspection.guestCluster(place))
    }

    /// What an entry that isn't plain refers to.
    func target(of entry: L2Entry, in bytes: Span<UInt8>, _ place: L2EntryInspection.Place) -> L2EntryTarget {
        inspection.target(of: entry, in: bytes, place, nil)
    }

    /// The guest cluster that the first entry of a table maps.
    func firstGuestCluster(_ table: Int) -> UInt64 {
        UInt64(firstL1Indices[table]) * UInt64(geometry.l2EntryCount)
    }
}
