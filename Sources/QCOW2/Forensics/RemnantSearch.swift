// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Searches leaked clusters for what leads to data that no state of the image has.
///
/// Answers whether freeing the clusters would destroy something: a deleted snapshot of which the deletion was never
/// finished, snapshots that a header doesn't count any more, a tree whose L1 table is gone. Copies of tables that an
/// interrupted writer left lead to clusters that the states have themselves, and are none of these.
///
/// Reads every allocated byte of the leaked clusters once, those of tables once more, and of free clusters at most as
/// many bytes as of leaked ones. Memory is a bit for each leaked cluster, and what is returned.
struct RemnantSearch {
    /// The most remnants that are returned.
    static let limit = 1000

    let shape: TableShape
    /// The clusters with a refcount that nothing refers to.
    let leaked: ClusterSet
    /// Those without one that something refers to, if there are any.
    let uncounted: ClusterSet
    var refcounts: RefcountReader
    /// Leaked clusters that aren't zeros.
    private(set) var filled: ClusterSet
    /// Those of them that have the shape of a table.
    private var tables: ClusterSet
    /// Those of them that are L2 tables with data of their own.
    private(set) var l2Tables: ClusterSet
    /// How many clusters of data these lead to; of the first ones, if there are very many.
    private(set) var dataCounts: [UInt64: UInt64] = [:]
    private static let dataCountLimit = 1 << 16
    private var collector = RemnantCollector()
    /// How many bytes of free clusters may still be read.
    var freeByteCount: UInt64 = 1 << 20
    /// A part of the file without any data.
    var hole: Range<UInt64> = 0..<0

    var geometry: ImageGeometry { shape.geometry }

    init(
        _ shape: TableShape, leaked: ClusterSet, uncounted: ClusterSet, _ refcounts: RefcountTable,
        present snapshots: [Snapshot]
    ) {
        self.shape = shape
        self.leaked = leaked
        self.uncounted = uncounted
        self.refcounts = RefcountReader(refcounts, pieceCount: 256)
        collector.present = Set(snapshots.map { RemnantCollector.Key($0) })
        filled = ClusterSet(clusterCount: leaked.clusterCount, pageLimit: ClusterSet.partPageLimit)
        (tables, l2Tables) = (filled, filled)
    }

    /// Searches.
    ///
    /// - Parameters:
    ///   - entries: Entries of snapshot tables that were found elsewhere, with their places.
    ///   - storage: The image's file.
    ///   - work: Counts what is read.
    /// - Returns: The first ``limit`` remnants: entries, L1 tables, then L2 tables that none of these leads to.
    /// - Throws: ``QCOW2Error/Code/inputOutput`` or ``QCOW2Error/Code/cancelled``.
    mutating func search<S: Storage & ~Copyable>(
        knowing entries: [(entry: SnapshotTableEntry, offset: HostOffset)] = [], reading storage: borrowing S,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) -> [Remnant] {
        for (entry, offset) in entries {
            collector.add(entry, at: offset, byteCount: entry.encodedByteCount, place: .slack)
        }
        try readLeaked(storage, &work)
        try forEachTable(storage, &work) { (search, cluster, bytes) throws(QCOW2Error) in
            guard let data = search.shape.data(ofL2EntriesIn: bytes) else { return }
            let count = try search.ownDataCount(data, storage)
            guard count > 0 else { return }
            search.l2Tables.insert(cluster)
            if search.dataCounts.count < Self.dataCountLimit { search.dataCounts[cluster] = count }
        }
        var found: [Remnant] = []
        var l1Tables = ClusterSet(clusterCount: leaked.clusterCount, pageLimit: ClusterSet.partPageLimit)
        var below = l1Tables
        try forEachTable(storage, &work) { (search, cluster, bytes) throws(QCOW2Error) in
            guard let l2Tables = search.shape.l2Tables(ofL1EntriesIn: bytes) else { return }
            let count = try search.ownDataCount(below: l2Tables, storage, noting: &below)
            guard count > 0 else { return }
            l1Tables.insert(cluster)
            // The clusters of one table follow each other.
            guard !l1Tables.contains(cluster &- 1), found.count < Self.limit else { return }
            found.append(
                Remnant(
                    kind: .l1Table, offset: search.geometry.offset(ofCluster: cluster), snapshot: nil,
                    dataClusterCount: count))
        }
        let entries = try findEntries(storage, &work)
        var next: UInt64 = 0
        while let run = l2Tables.nextRun(from: next, inSet: true) {
            for cluster in run.first..<run.end {
                guard entries.count + found.count < Self.limit else { break }
                guard !below.contains(cluster), !l1Tables.contains(cluster) else { continue }
                found.append(
                    Remnant(
                        kind: .l2Table, offset: geometry.offset(ofCluster: cluster), snapshot: nil,
                        dataClusterCount: dataCounts[cluster] ?? 1))
            }
            next = run.end
            try work.checkForWish()
        }
        return Array((entries + found).prefix(Self.limit))
    }

    /// Finds the entries of snapshots that the image doesn't have, and that lead to data.
    private mutating func findEntries<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> [Remnant] {
        var found: [Remnant] = []
        for entry in collector.found where found.count < Self.limit {
            try work.checkForWish()
            let count = try ownDataCount(ofL1TableAt: entry.l1TableOffset, entryCount: entry.l1EntryCount, storage)
            guard count > 0 else { continue }
            found.append(
                Remnant(
                    kind: .snapshotEntry, offset: entry.offset, snapshot: entry.snapshot, dataClusterCount: count))
        }
        return found
    }
}

// Reading the leaked clusters.
extension RemnantSearch {
    /// Bytes that are read at once.
    private static let pieceByteCount: UInt64 = 1 << 20
    /// Bytes that are read on top, so that an entry on a border is found.
    private static let overlapByteCount: UInt64 = 2048

    /// Learns which leaked clusters aren't zeros, which look like tables, and what snapshot entries are in them.
    private mutating func readLeaked<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let clustersPerPiece = max(1, Self.pieceByteCount >> UInt64(geometry.clusterBits))
        var next: UInt64 = 0
        while let run = leaked.nextRun(from: next, inSet: true) {
            let start = geometry.offset(ofCluster: run.first).rawValue
            let end = min(geometry.offset(ofCluster: run.end).rawValue, shape.fileByteCount)
            try work.checkForWish()
            guard start < end, let data = try storage.dataRange(in: start..<end) else {
                next = run.end
                continue
            }
            let first = geometry.cluster(at: HostOffset(data.lowerBound))
            let last = geometry.cluster(at: HostOffset(data.upperBound - 1))
            let piece = ClusterRun(first: first, count: min(last - first + 1, clustersPerPiece))
            try read(piece, upTo: end, storage, &work)
            next = piece.end
        }
    }

    private mutating func read<S: Storage & ~Copyable>(
        _ piece: ClusterRun, upTo runEnd: UInt64, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let offset = geometry.offset(ofCluster: piece.first)
        let present = runEnd - offset.rawValue
        let byteCount = min(piece.count << UInt64(geometry.clusterBits), present)
        let bytes = try storage.readBytes(Int(min(byteCount + Self.overlapByteCount, present)), at: offset)
        freeByteCount += byteCount
        try work.advance(by: byteCount)
        var hasData = false
        for index in 0..<Int(piece.count) {
            let start = index << geometry.clusterBits
            let end = min(start + geometry.clusterByteCount, Int(byteCount))
            guard !bytes.span.isZero(in: start..<end) else { continue }
            hasData = true
            filled.insert(piece.first + UInt64(index))
            let cluster = bytes.span.extracting(start..<end)
            if shape.data(ofL2EntriesIn: cluster) != nil || shape.l2Tables(ofL1EntriesIn: cluster) != nil {
                tables.insert(piece.first + UInt64(index))
            }
        }
        guard hasData else { return }
        collector.collect(in: bytes, from: offset, place: .leaked, startingIn: Int(byteCount))
    }

    /// Reads those clusters again that look like tables.
    private mutating func forEachTable<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter,
        _ body: (_ search: inout Self, _ cluster: UInt64, _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var next: UInt64 = 0
        while let run = tables.nextRun(from: next, inSet: true) {
            let offset = geometry.offset(ofCluster: run.first)
            let bytes = try storage.readBytes(
                Int(min(geometry.clusterSize, shape.fileByteCount - offset.rawValue)), at: offset)
            try body(&self, run.first, bytes.span)
            try work.advance(by: UInt64(bytes.count))
            next = run.first + 1
        }
    }
}
