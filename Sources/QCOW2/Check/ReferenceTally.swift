// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts all references of an image as it is, a window of clusters at a time.
///
/// Section "3.3 The multiplicity rule".
///
/// Each distinct L2 table is read once; again for a further window only if its runs were too many to remember and some
/// lie there. Memory is bounded by the window, not by the image.
struct ReferenceTally: Sendable {
    let subject: CheckSubject
    private(set) var l2Tables: L2Tables
    private(set) var statistics = MappingStatistics()
    /// References to clusters past the end of the file, from entries that shouldn't be.
    private(set) var pastEnd = PastEndReferences()
    private(set) var decodedClusterCount: UInt64 = 0
    private var wasRead: [Bool]
    private var reader: L2TableReader
    private let scan: L2TableScan
    private let inspection: L2EntryInspection
    private let claims: TableClaims
    private let isDeep: Bool

    private var geometry: ImageGeometry { subject.geometry }

    init(_ subject: CheckSubject, _ claims: TableClaims, _ l2Tables: L2Tables, isDeep: Bool) {
        self.subject = subject
        self.claims = claims
        self.l2Tables = l2Tables
        self.isDeep = isDeep
        wasRead = [Bool](repeating: false, count: l2Tables.count)
        reader = L2TableReader(subject.geometry)
        // Where clusters are in another file, no entry is plain.
        scan = L2TableScan(
            geometry: subject.geometry, fileByteCount: subject.hasDataFile ? 0 : subject.bounds.byteCount)
        inspection = L2EntryInspection(
            geometry: subject.geometry, bounds: subject.bounds, hasDataFile: subject.hasDataFile)
    }

    /// The ranges of clusters to count at once, for lanes of some width.
    func windows(of clusters: Range<UInt64>, laneByteCount: Int, budget: Int) -> [Range<UInt64>] {
        // Half a budget for the lanes: the rest is for what was found.
        let most = UInt64(max(RefcountReader.pieceCount, budget / 2 / laneByteCount))
        let total = UInt64(clusters.count)
        let count = (total + most - 1) / most
        guard count > 0 else { return [] }
        // Equal windows, at borders where a piece of refcounts may start.
        let piece = UInt64(RefcountReader.pieceCount)
        let capacity = ((total + count - 1) / count + piece - 1) / piece * piece
        return stride(from: clusters.lowerBound, to: clusters.upperBound, by: Int(capacity)).map {
            $0..<min($0 + capacity, clusters.upperBound)
        }
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
        var suspects: [Int] = []
        var unread: [Int] = []
        for index in 0..<l2Tables.count {
            let table = l2Tables[index]
            guard let weight = weight(of: table, part, Lane.self) else { return nil }
            window.add(ClusterRun(first: geometry.cluster(at: table.offset), count: 1), weight)
        }
        guard !window.hasOverflowed else { return nil }
        for index in 0..<l2Tables.count {
            let table = l2Tables[index]
            guard let runs = l2Tables.keptRuns(of: table) else {
                if !wasRead[index] || table.targets.overlaps(window.range) { unread.append(index) }
                continue
            }
            let weight = weight(of: table, part, Lane.self) ?? 0
            if window.addRuns(runs, weight, flag: table.flags.isAnySet), table.isActive { suspects.append(index) }
        }
        try read(unread, part, in: &window, storage, sink, &suspects, &work)
        return window.hasOverflowed ? nil : suspects
    }

    private func weight<Lane>(of table: L2Table, _ part: Part, _ type: Lane.Type) -> Lane?
    where Lane: FixedWidthInteger & UnsignedInteger & Sendable {
        CheckWindow<Lane>.weight(UInt64(part == .all ? table.oldWeight : table.newWeight))
    }

    private mutating func read<Lane, S: Storage & ~Copyable>(
        _ unread: [Int], _ part: Part, in window: inout CheckWindow<Lane>, _ storage: borrowing S,
        _ sink: FindingSink?, _ suspects: inout [Int], _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var isUnread = [Bool](repeating: false, count: l2Tables.count)
        for index in unread { isUnread[index] = true }
        var (wasRead, statistics, pastEnd) = (wasRead, statistics, pastEnd)
        var decoder = CompressedChecker(subject)
        let (scan, inspection, claims, isDeep) = (scan, inspection, claims, isDeep)
        var found: [Int] = []
        var foundPastEnd: [(run: ClusterRun, weight: UInt64)] = []
        let fileClusterCount = subject.countedClusterCount
        try reader.forEach(of: &l2Tables, from: storage, &work, where: { isUnread[$1] }) {
            (l2Tables, index, bytes) throws(QCOW2Error) in
            let table = l2Tables[index]
            let isFirst = !wasRead[index]
            let weight = CheckWindow<Lane>.weight(UInt64(part == .all ? table.oldWeight : table.newWeight)) ?? 0
            let checked = try window.addTable(bytes, weight, scan) { (entry, position) throws(QCOW2Error) in
                let place = L2EntryInspection.Place(
                    tableOffset: table.offset, position: position, l1Index: table.firstL1Index,
                    isActive: table.isActive)
                let target = inspection.target(of: entry, in: bytes, place, isFirst ? sink : nil)
                guard isFirst, let run = target.run else { return target }
                if run.end > fileClusterCount { foundPastEnd.append((run, UInt64(table.oldWeight))) }
                if let compressed = target.compressed {
                    if let sink, let owner = claims.owner(of: run), owner.run.first > 0 {
                        sink.add(
                            .dataInMetadata, at: place.offset, in: "L2 table",
                            "Compressed bytes at \(compressed.offset) lie in the \(owner.name).")
                    }
                    if isDeep { decoder.note(compressed, at: place.offset) }
                }
                return target
            }
            if table.isActive, checked.hasWrongFlag { found.append(index) }
            guard isFirst else { return }
            wasRead[index] = true
            statistics.add(checked.statistics, times: UInt64(table.oldWeight &- table.newWeight))
            for (run, weight) in foundPastEnd { pastEnd.add(run, weight, from: fileClusterCount) }
            foundPastEnd.removeAll(keepingCapacity: true)
            l2Tables.note(checked.findings, of: index)
            if let sink { try decoder.decode(from: storage, sink) }
        }
        suspects += found
        (self.wasRead, self.statistics, self.pastEnd) = (wasRead, statistics, pastEnd)
        decodedClusterCount += decoder.count
    }

    /// Reads those L2 tables again that may refer to a window's clusters.
    mutating func forEachTable<S: Storage & ~Copyable>(
        near range: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter,
        where isWanted: (L2Table, Int) -> Bool,
        _ body: (_ table: L2Table, _ index: Int, _ bytes: Span<UInt8>, L2TableScan) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let scan = scan
        try reader.forEach(
            of: &l2Tables, from: storage, &work, where: { $0.targets.overlaps(range) && isWanted($0, $1) }
        ) { (l2Tables, index, bytes) throws(QCOW2Error) in try body(l2Tables[index], index, bytes, scan) }
    }

    /// The entry's place, for messages.
    func place(_ table: L2Table, _ index: Int) -> L2EntryInspection.Place {
        L2EntryInspection.Place(
            tableOffset: table.offset, position: index * geometry.l2EntryByteCount, l1Index: table.firstL1Index,
            isActive: table.isActive)
    }

    /// The guest offset that an entry maps.
    func guestOffset(_ place: L2EntryInspection.Place) -> HostOffset {
        geometry.offset(ofCluster: inspection.guestCluster(place))
    }

    /// What an entry that isn't plain refers to.
    func target(of entry: L2Entry, in bytes: Span<UInt8>, _ place: L2EntryInspection.Place) -> L2EntryTarget {
        inspection.target(of: entry, in: bytes, place, nil)
    }
}

/// References to clusters past the end of the file.
struct PastEndReferences: Sendable {
    /// By cluster, as many as are remembered.
    private(set) var counts: [UInt64: UInt64] = [:]
    /// Whether there were more.
    private(set) var isCut = false

    /// 40 MiB or so.
    private static let maximumCount = 1 << 20

    mutating func add(_ run: ClusterRun, _ weight: UInt64, from fileClusterCount: UInt64) {
        for cluster in max(run.first, fileClusterCount)..<max(run.end, fileClusterCount) {
            if counts.count < Self.maximumCount || counts[cluster] != nil {
                counts[cluster, default: 0] &+= weight
            } else {
                isCut = true
            }
        }
    }
}

/// Decompresses clusters to see whether it can be done.
///
/// Invariant I-30.
struct CompressedChecker {
    private let subject: CheckSubject
    private var pending: [(cluster: CompressedCluster, place: HostOffset)] = []
    private(set) var count: UInt64 = 0

    init(_ subject: CheckSubject) { self.subject = subject }

    mutating func note(_ cluster: CompressedCluster, at place: HostOffset) {
        guard cluster.offset.rawValue < subject.bounds.byteCount else { return }
        pending.append((cluster, place))
    }

    /// Decompresses what was noted.
    mutating func decode<S: Storage & ~Copyable>(
        from storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        var output = [UInt8](repeating: 0, count: pending.isEmpty ? 0 : subject.geometry.clusterByteCount)
        for (cluster, place) in pending {
            let input = try storage.readBytes(Int(cluster.byteCount), at: cluster.offset)
            count += 1
            do throws(QCOW2Error) {
                var span = output.mutableSpan
                try ClusterCodec.decompress(
                    input.span, subject.header.compressionType ?? .deflate, into: &span, at: cluster.offset)
            } catch  where error.code == .corrupt {
                sink.add(
                    .compressedDataInvalid, at: place, in: "L2 table",
                    "The compressed bytes at \(cluster.offset) don't decode to a whole cluster.")
            }
        }
        pending.removeAll(keepingCapacity: true)
    }
}
