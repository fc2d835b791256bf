// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What is counted by a sweep: one value a cluster, for a range of clusters at a time.
///
/// The sweep calls a client once for each L2 table, never for a single entry, so that all loops over entries and
/// clusters are the client's own, and the compiler can make vector instructions of them.
protocol SweepClient {
    /// The clusters that are counted now.
    var range: Range<UInt64> { get }

    /// Adds every L2 table itself, and what those refer to whose runs are kept.
    ///
    /// - Returns: Whether all that was added can be counted; if not, no table is read.
    mutating func addKnown(_ sweep: ReferenceSweep) -> Bool

    /// Adds what the table at an index refers to, and returns what is worth remembering of it.
    ///
    /// The first time it is read in a sweep, `isFirst` is true; what is returned later is forgotten.
    mutating func add(
        _ index: Int, _ bytes: Span<UInt8>, isFirst: Bool, _ sweep: ReferenceSweep
    ) throws(QCOW2Error) -> L2TableFindings
}

/// Walks the distinct L2 tables of an image for one client after the other, a window of clusters at a time.
///
/// The only engine that follows references. Each table is read once; again for a further window only if its runs were
/// too many to remember and some lie there. Tables that lie in holes of the file are known to be empty and never read.
/// Memory is bounded by the client's window, plus about 50 bytes for each distinct L2 table.
struct ReferenceSweep: Sendable {
    let geometry: ImageGeometry
    let tables: L2Tables
    /// By the table's index.
    private(set) var contents: L2TableContents
    /// How entries are read.
    let scan: L2TableScan
    private var reader: L2TableReader
    /// Whether every table was read.
    private(set) var hasRead = false
    private var hasLookedForHoles = false

    /// A sweep over tables of a file of `fileByteCount` bytes: no entry that points behind its end is plain.
    init(_ tables: L2Tables, in geometry: ImageGeometry, fileByteCount: UInt64) {
        self.tables = tables
        self.geometry = geometry
        contents = L2TableContents(count: tables.count)
        scan = L2TableScan(geometry: geometry, fileByteCount: fileByteCount)
        reader = L2TableReader(geometry)
    }

    /// The cluster that a table takes itself.
    func cluster(of index: Int) -> ClusterRun {
        ClusterRun(first: geometry.cluster(at: tables[index].offset), count: 1)
    }

    /// Adds all references to the client's range.
    ///
    /// - Parameters:
    ///   - client: Who counts.
    ///   - storage: The file.
    ///   - work: Asked between reads whether to go on.
    ///   - isWanted: Which tables count; all of them when they are read for the first time.
    /// - Returns: Whether the client could count everything.
    /// - Throws: What the client throws, ``QCOW2Error/Code/cancelled``, or ``QCOW2Error/Code/inputOutput``.
    mutating func cover<Client: SweepClient, S: Storage & ~Copyable>(
        _ client: inout Client, reading storage: borrowing S, _ work: inout WorkMeter,
        where isWanted: (L2Table) -> Bool = { _ in true }
    ) throws(QCOW2Error) -> Bool {
        try work.checkForWish()
        try findHoles(storage)
        guard client.addKnown(self) else { return false }
        let (range, isFirst, sweep) = (client.range, !hasRead, self)
        var (reader, contents) = (reader, contents)
        try reader.forEach(
            of: tables, from: storage, &work,
            where: {
                sweep.contents.needsReading($0, for: isFirst ? 0..<UInt64.max : range)
                    && (isFirst || isWanted(sweep.tables[$0]))
            }
        ) { (index, bytes) throws(QCOW2Error) in
            let findings = try client.add(index, bytes, isFirst: isFirst, sweep)
            if isFirst { contents.note(findings, of: index) }
        }
        self.contents = contents
        hasRead = true
        return true
    }

    /// Reads those tables again that may refer to clusters of a range.
    mutating func forEachTable<S: Storage & ~Copyable>(
        near range: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter,
        where isWanted: (_ index: Int) -> Bool,
        _ body: (_ index: Int, _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let contents = contents
        try reader.forEach(
            of: tables, from: storage, &work, where: { contents[$0].targets.overlaps(range) && isWanted($0) }, body)
    }

    /// Notes which tables lie in holes of the file, where there are more tables than bytes on the disk.
    ///
    /// Otherwise the work is in proportion to those bytes anyway, and isn't worth asking about.
    private mutating func findHoles<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        guard !hasLookedForHoles else { return }
        hasLookedForHoles = true
        guard let allocated = try storage.allocatedByteCount(), allocated >> UInt64(geometry.clusterBits) < tables.count
        else { return }
        var data: Range<UInt64>? = 0..<0
        for index in 0..<tables.count {
            let start = tables[index].offset.rawValue
            let end = start + geometry.clusterSize
            if let known = data, known.upperBound <= start {
                data = try storage.dataRange(in: start..<UInt64(Int64.max))
            }
            guard let data, data.lowerBound < end else {
                contents.noteEmpty(index)
                continue
            }
        }
    }
}

extension ReferenceSweep {
    /// The most clusters in places that the refcounts say nothing about: what a file that was made on purpose has.
    private static let maximumStrayCount = 1 << 16

    /// Adds the parts of the file that L2 tables refer to although no refcount, nor any table, is there.
    ///
    /// A sound image has none. Reads all L2 tables, unless the occupied parts are the whole file.
    ///
    /// - Returns: Whether there were any.
    /// - Throws: ``QCOW2Error/Code/unsupported`` when there are so many of them that following them would take hours.
    mutating func findStrays<S: Storage & ~Copyable>(
        outside occupied: inout OccupiedClusters, upTo clusterCount: UInt64, reading storage: borrowing S,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Bool {
        guard !occupied.contains(0..<clusterCount) else { return false }
        try findHoles(storage)
        let known = occupied
        var found = OccupiedClusters()
        var strayCount = 0
        var tooMany = false
        let scan = scan
        func note(_ run: ClusterRun) {
            let part = run.first..<min(max(run.first, clusterCount), run.end)
            guard !part.isEmpty, !known.contains(part) else { return }
            strayCount += 1
            if strayCount > Self.maximumStrayCount { tooMany = true } else { found.add(part) }
        }
        let contents = contents
        try reader.forEach(
            of: tables, from: storage, &work, where: { contents.needsReading($0, for: 0..<UInt64.max) && !tooMany }
        ) { (index, bytes) throws(QCOW2Error) in
            scan.forEachCluster(in: bytes, note)
        }
        guard !tooMany else {
            throw QCOW2Error(
                .unsupported,
                "More than \(Self.maximumStrayCount) entries refer to clusters far from everything else in the file, "
                    + "which has holes there; following them all would take too long.")
        }
        occupied.add(found)
        return strayCount > 0
    }
}

extension L2TableScan {
    /// Hands out the clusters that each entry refers to, whether the entry is right or not.
    func forEachCluster(in table: Span<UInt8>, _ body: (ClusterRun) -> Void) {
        do throws(QCOW2Error) {
            _ = try forEachRun(in: table, splitting: false) { run, _, _ in
                body(run)
            } odd: { (entry, _, _) throws(QCOW2Error) in
                if entry.isCompressed {
                    body(entry.compressed(in: geometry).run(in: geometry))
                } else if let offset = entry.ownCluster {
                    // One that isn't aligned touches two.
                    body(ClusterRun(first: geometry.cluster(at: offset), count: geometry.isAligned(offset) ? 1 : 2))
                }
            }
        } catch {
            // Nothing above throws.
        }
    }
}
