// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Collects the tables of an image whose clusters are counted once each.
///
/// Section "3.2 What counts as one reference".
struct MetadataTables: Sendable {
    let geometry: ImageGeometry
    let bounds: FileBounds
    private(set) var tables: [Table]
    /// The clusters of refcount blocks and of bitmaps' data, of which there may be very many; in ascending order.
    private(set) var singles = SingleClusters()

    /// Clusters that hold a table, and nothing else may.
    struct Table: Hashable, Sendable {
        let kind: Kind
        let run: ClusterRun
        /// The ID of the snapshot whose table it is.
        var snapshotID: [UInt8] = []

        /// For messages.
        var name: String {
            kind == .snapshotL1 ? "\(kind.rawValue) of snapshot '\(escaped(snapshotID))'" : kind.rawValue
        }

        enum Kind: String, Hashable, Sendable {
            case header
            case encryption = "encryption header"
            case activeL1 = "active L1 table"
            case snapshotL1 = "L1 table"
            case snapshotTable = "snapshot table"
            case refcountTable = "refcount table"
            case refcountBlock = "refcount block"
            case bitmapDirectory = "bitmap directory"
            case bitmapTable = "bitmap table"
            case bitmapData = "bitmap data"

            /// Whether it goes when bitmaps are given up.
            var isBitmap: Bool { self == .bitmapDirectory || self == .bitmapTable || self == .bitmapData }
        }
    }

    init(geometry: ImageGeometry, bounds: FileBounds) {
        self.geometry = geometry
        self.bounds = bounds
        tables = [Table(kind: .header, run: ClusterRun(first: 0, count: 1))]
    }

    /// Adds a table, which must lie inside the file.
    ///
    /// An empty one adds nothing.
    mutating func add(
        _ kind: Table.Kind, at offset: HostOffset, _ byteCount: UInt64, from place: HostOffset? = nil,
        snapshotID: [UInt8] = []
    ) throws(QCOW2Error) {
        // The name is only made when it is wanted.
        guard !bounds.contains(offset, byteCount: byteCount, in: geometry) else {
            return append(kind, at: offset, byteCount, snapshotID: snapshotID)
        }
        let table = Table(kind: kind, run: ClusterRun(first: 0, count: 1), snapshotID: snapshotID)
        throw .beyondEnd(table.name, offset, at: place ?? offset)
    }

    /// Adds a table, wherever it lies.
    mutating func append(_ kind: Table.Kind, at offset: HostOffset, _ byteCount: UInt64, snapshotID: [UInt8] = []) {
        guard let run = geometry.run(at: offset, byteCount: byteCount) else { return }
        tables.append(Table(kind: kind, run: run, snapshotID: snapshotID))
    }

    /// Adds one cluster of bitmap data, which must lie inside the file.
    mutating func addBitmapData(at offset: HostOffset, from place: HostOffset) throws(QCOW2Error) {
        guard bounds.contains(offset, byteCount: geometry.clusterSize, in: geometry) else {
            throw .beyondEnd(Table.Kind.bitmapData.rawValue, offset, at: place)
        }
        singles.bitmapData.append(geometry.cluster(at: offset))
    }

    /// Adds all refcount blocks, of which it was checked already that they lie in the file.
    mutating func addBlocks(of refcounts: RefcountTable) {
        singles.refcountBlocks = refcounts.blockOffsets.compactMap { $0.map(geometry.cluster) }
        singles.refcountBlocks.sort()
    }

    /// Adds the bitmap data that another collection found.
    mutating func takeBitmaps(of other: MetadataTables) {
        tables += other.tables.filter(\.kind.isBitmap)
        singles.bitmapData = other.singles.bitmapData
    }

    /// Puts bitmap data in order.
    mutating func sortBitmapData() { singles.bitmapData.sort() }

    /// Adds what the header and the snapshot table point to, except refcount blocks.
    mutating func addTables(of opened: OpenedImage) throws(QCOW2Error) {
        let header = opened.header
        try add(.activeL1, at: header.l1TableOffset, UInt64(header.l1EntryCount) * UInt64(L1Entry.byteCount))
        let refcountByteCount = UInt64(header.refcountTableClusterCount) * geometry.clusterSize
        try add(.refcountTable, at: header.refcountTableOffset, refcountByteCount)
        if header.snapshotCount > 0 {
            try add(.snapshotTable, at: header.snapshotTableOffset, opened.snapshotTableByteCount)
        }
        for entry in opened.entries {
            let byteCount = UInt64(entry.l1EntryCount) * UInt64(L1Entry.byteCount)
            try add(.snapshotL1, at: entry.l1TableOffset, byteCount, snapshotID: entry.id)
        }
        if let record = opened.extensions.last(.encryption) {
            let encryption = try EncryptionHeader(decoding: record, in: geometry)
            try add(.encryption, at: encryption.region, encryption.regionByteCount, from: record.offset)
        }
    }

    /// Checks that no two tables share a cluster.
    ///
    /// Invariant I-9 between tables. Costs O(n log n) for n tables.
    func checkDisjoint() throws(QCOW2Error) {
        let sorted = tables.sorted { $0.run.first < $1.run.first }
        var (table, block, data) = (0, 0, 0)
        var last: Table?
        while true {
            // The next one of three lists that are each in order.
            var next: Table?
            func consider(_ other: @autoclosure () -> Table, at first: UInt64?) {
                guard let first, next.map({ first < $0.run.first }) ?? true else { return }
                next = other()
            }
            consider(sorted[table], at: table < sorted.count ? sorted[table].run.first : nil)
            consider(singles.block(block), at: singles.refcountBlocks[at: block])
            consider(singles.data(data), at: singles.bitmapData[at: data])
            guard let next else { return }
            switch next.kind {
            case .refcountBlock: block += 1
            case .bitmapData: data += 1
            default: table += 1
            }
            if let last, next.run.first < last.run.end {
                throw QCOW2Error(
                    .corrupt, "The \(next.name) overlaps the \(last.name).",
                    at: geometry.offset(ofCluster: next.run.first))
            }
            last = next
        }
    }
}

/// Single clusters of metadata, by kind: eight bytes each, because a file may have many millions.
struct SingleClusters: Sendable {
    fileprivate(set) var refcountBlocks: [UInt64] = []
    fileprivate(set) var bitmapData: [UInt64] = []

    fileprivate func block(_ index: Int) -> MetadataTables.Table {
        MetadataTables.Table(kind: .refcountBlock, run: ClusterRun(first: refcountBlocks[index], count: 1))
    }

    fileprivate func data(_ index: Int) -> MetadataTables.Table {
        MetadataTables.Table(kind: .bitmapData, run: ClusterRun(first: bitmapData[index], count: 1))
    }
}

extension [UInt64] {
    fileprivate subscript(at index: Int) -> UInt64? { index < count ? self[index] : nil }

    /// Those of some clusters, in ascending order, that lie in a range.
    func clusters(in range: Range<UInt64>) -> ArraySlice<UInt64> {
        func start(of cluster: UInt64) -> Int {
            var (low, high) = (0, count)
            while low < high {
                let middle = (low + high) / 2
                if self[middle] < cluster { low = middle + 1 } else { high = middle }
            }
            return low
        }
        return self[start(of: range.lowerBound)..<start(of: range.upperBound)]
    }
}
