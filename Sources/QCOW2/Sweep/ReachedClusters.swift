// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which clusters something refers to, in one bit each: the sweep's client for who only wants to know that.
struct ReachedClusters: Sendable {
    let geometry: ImageGeometry
    let fileByteCount: UInt64
    /// Every cluster that something refers to.
    private(set) var clusters: ClusterSet
    /// Whether a limit of bytes or of memory ended the sweep, so that more may be referred to.
    private(set) var isCut: Bool
    private let l2Tables: L2Tables

    /// Follows all references; what is wrong with an entry goes to `sink`.
    ///
    /// Reads every allocated L2 table once, unless they have more than `byteLimit` bytes together: then none.
    ///
    /// - Throws: ``QCOW2Error/Code/cancelled``, or ``QCOW2Error/Code/inputOutput``.
    init<S: Storage & ~Copyable>(
        _ reading: ImageReading, _ mappings: MappingIndex, byteLimit: UInt64, from storage: borrowing S,
        _ sink: FindingSink, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        geometry = reading.geometry
        fileByteCount = reading.bounds.byteCount
        l2Tables = mappings.l2Tables
        var found = ClusterSet(clusterCount: reading.fileClusterCount)
        for table in reading.tables { found.insert(table.run) }
        for cluster in reading.singles.refcountBlocks { found.insert(cluster) }
        for cluster in reading.singles.bitmapData { found.insert(cluster) }
        var client = Client(reading, mappings, found, sink)
        // Tables in holes are not read.
        let byteCount = min(UInt64(l2Tables.count) * geometry.clusterSize, try storage.allocatedByteCount() ?? .max)
        isCut = byteCount > byteLimit
        if !isCut {
            // Where clusters are in another file, no entry is plain.
            var sweep = ReferenceSweep(
                l2Tables, in: geometry, fileByteCount: reading.hasDataFile ? 0 : reading.bounds.byteCount)
            _ = try sweep.cover(&client, reading: storage, &work)
        }
        clusters = client.clusters
        isCut = isCut || clusters.isCut
    }

    func contains(_ cluster: UInt64) -> Bool { clusters.contains(cluster) }

    /// Whether a cluster holds an L2 table of some state.
    func isL2Table(_ cluster: UInt64) -> Bool {
        l2Tables.index(of: geometry.offset(ofCluster: cluster), near: 0) != nil
    }

    private struct Client: SweepClient {
        var clusters: ClusterSet
        private let firstL1Indices: [UInt32]
        private let inspection: L2EntryInspection
        private let sink: FindingSink

        var range: Range<UInt64> { 0..<clusters.clusterCount }

        init(_ reading: ImageReading, _ mappings: MappingIndex, _ clusters: ClusterSet, _ sink: FindingSink) {
            self.clusters = clusters
            firstL1Indices = mappings.firstL1Indices
            inspection = L2EntryInspection(
                geometry: reading.geometry, bounds: reading.bounds, hasDataFile: reading.hasDataFile)
            self.sink = sink
        }

        mutating func addKnown(_ sweep: ReferenceSweep) -> Bool {
            for index in 0..<sweep.tables.count { clusters.insert(sweep.cluster(of: index)) }
            return true
        }

        mutating func add(
            _ index: Int, _ bytes: Span<UInt8>, isFirst: Bool, _ sweep: ReferenceSweep
        ) throws(QCOW2Error) -> L2TableFindings {
            var findings = L2TableFindings()
            // Everything is covered at once: nothing needs to be remembered.
            findings.forgetRuns()
            let table = sweep.tables[index]
            findings.flags = try sweep.scan.forEachRun(in: bytes, splitting: false) { run, _, _ in
                clusters.insert(run)
            } odd: { (entry, position, _) throws(QCOW2Error) in
                let place = L2EntryInspection.Place(
                    tableOffset: table.offset, position: position, l1Index: firstL1Indices[index],
                    isActive: table.isActive)
                if let run = inspection.target(of: entry, in: bytes, place, sink).run { clusters.insert(run) }
            }
            return findings
        }
    }
}
