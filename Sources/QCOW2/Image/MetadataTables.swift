// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Collects the tables of an image whose clusters are counted once each.
///
/// Section "3.2 What counts as one reference".
struct MetadataTables: Sendable {
    let geometry: ImageGeometry
    let bounds: FileBounds
    private(set) var tables: [Table]

    /// Clusters that hold a table, and nothing else may.
    struct Table: Hashable, Sendable {
        let kind: Kind
        /// For messages.
        let name: String
        let run: ClusterRun

        enum Kind: Hashable, Sendable {
            /// Stays where it is: the header and the encryption header.
            case fixed
            case activeL1, snapshotL1, snapshotTable, refcountTable, refcountBlock
            /// A bitmap directory, table or data cluster.
            case bitmap
        }
    }

    init(geometry: ImageGeometry, bounds: FileBounds) {
        self.geometry = geometry
        self.bounds = bounds
        tables = [Table(kind: .fixed, name: "header", run: ClusterRun(first: 0, count: 1))]
    }

    /// Adds a table, which must lie inside the file.
    ///
    /// An empty one adds nothing.
    mutating func add(
        _ kind: Table.Kind, _ name: String, at offset: HostOffset, _ byteCount: UInt64, from place: HostOffset? = nil
    ) throws(QCOW2Error) {
        try bounds.checkTable(name, offset, byteCount: byteCount, in: geometry, at: place ?? offset)
        guard let run = geometry.run(at: offset, byteCount: byteCount) else { return }
        tables.append(Table(kind: kind, name: name, run: run))
    }

    /// Adds what the header and the snapshot table point to, except refcount blocks.
    mutating func addTables(of opened: OpenedImage) throws(QCOW2Error) {
        let header = opened.header
        let l1ByteCount = UInt64(header.l1EntryCount) * UInt64(L1Entry.byteCount)
        try add(.activeL1, "active L1 table", at: header.l1TableOffset, l1ByteCount)
        let refcountByteCount = UInt64(header.refcountTableClusterCount) * geometry.clusterSize
        try add(.refcountTable, "refcount table", at: header.refcountTableOffset, refcountByteCount)
        if header.snapshotCount > 0 {
            try add(.snapshotTable, "snapshot table", at: header.snapshotTableOffset, opened.snapshotTableByteCount)
        }
        for entry in opened.entries {
            let byteCount = UInt64(entry.l1EntryCount) * UInt64(L1Entry.byteCount)
            try add(.snapshotL1, "L1 table of snapshot '\(escaped(entry.id))'", at: entry.l1TableOffset, byteCount)
        }
        if let record = opened.extensions.last(.encryption) {
            let encryption = try EncryptionHeader(decoding: record, in: geometry)
            try add(
                .fixed, "encryption header", at: encryption.region, encryption.regionByteCount, from: record.offset)
        }
    }

    /// Checks that no two tables share a cluster.
    ///
    /// Invariant I-9 between tables.
    func checkDisjoint() throws(QCOW2Error) {
        let sorted = tables.sorted { $0.run.first < $1.run.first }
        for index in sorted.indices.dropFirst() where sorted[index].run.first < sorted[index - 1].run.end {
            let (table, next) = (sorted[index - 1], sorted[index])
            throw QCOW2Error(
                .corrupt, "The \(next.name) overlaps the \(table.name).",
                at: geometry.offset(ofCluster: next.run.first))
        }
    }
}
