// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an image says about itself, read once: by everything that opens, checks, repairs or inspects it.
///
/// In two stages, each of which costs what it reads: the head (header, extensions, snapshot table, and where the tables
/// are), then the tables whose clusters count (bitmaps, refcount table). L1 tables, L2 tables and refcounts are others'.
///
/// What is wrong is a finding, and what can't be used is left out. How much is put up with is the ``FindingSink``'s: an
/// opening that is to be strict throws the first finding that forbids it, a check and a repair go on unless the header
/// says nothing about the rest (another format, an unknown version or feature, sizes that can't be), and an inspection
/// goes on even then. So what refuses an image is also what a check and an inspection say of it.
struct ImageReading: Sendable {
    /// The bytes that the header was decoded from.
    let fields: HeaderFields
    /// The header; its refcount table is cut to what lies in the file.
    var header: Header
    /// The extensions that can be used, in the order of the file.
    var extensions: [HeaderExtension] = []
    /// All of them, as they were found.
    var extensionArea: HeaderExtensionArea
    /// The snapshots whose entries could be read and point to an L1 table, in table order.
    var snapshots: [SnapshotTableReader.Found] = []
    /// The snapshots whose entries could be read, but point to no L1 table that could be.
    var unusableSnapshots: [SnapshotTableReader.Found] = []
    /// Every L1 table that could be found; the active one first, even if there is none.
    var trees: [Tree]
    /// Bytes from the start of the snapshot table to the end of its last readable entry.
    var snapshotTableByteCount: UInt64 = 0
    /// Whether the snapshot table holds entries that need to be written anew.
    var needsSnapshotTable = false
    /// Every table whose clusters are counted once each.
    var tables: [MetadataTables.Table] { collected.tables }
    /// Refcount blocks and bitmap data, which are counted once each as well.
    var singles: SingleClusters { collected.singles }
    var collected: MetadataTables
    var refcounts: RefcountTable
    /// Whether the image holds bitmaps that are consistent with the disk.
    var hasTrustedBitmaps = false
    /// Whether everything is known that could refer to a cluster.
    var isComplete = true
    /// Whether every L1 table lies in the file as a whole, so that it can be written anew.
    var canMoveL2Tables = true

    let bounds: FileBounds
    /// The file's first sector, which all of it follows from.
    let headerSector: [UInt8]

    /// An L1 table, as far as it lies in the file.
    struct Tree: Sendable {
        let offset: HostOffset
        let entryCount: Int
        /// The ID of the snapshot whose table it is; `nil` for the active one.
        var snapshotID: [UInt8]?

        /// For messages.
        var name: String {
            let kind: MetadataTables.Table.Kind = snapshotID == nil ? .activeL1 : .snapshotL1
            return MetadataTables.Table(
                kind: kind, run: ClusterRun(first: 0, count: 1), snapshotID: snapshotID ?? []
            ).name
        }
    }

    var geometry: ImageGeometry { header.geometry }
    var hasDataFile: Bool { header.incompatibleFeatures.contains(.externalDataFile) }
    /// The clusters of the file; the last one may be cut off.
    var fileClusterCount: UInt64 { geometry.clusterCount(forBytes: bounds.byteCount) }
    /// The clusters that are counted in windows: those of the file, up to where narrow refcounts start at a byte.
    var countedClusterCount: UInt64 { (fileClusterCount + 7) / 8 * 8 }

    /// Reads the head and the tables, and notes what is wrong with them.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported`, `corrupt` or `inputOutput`.
    init<S: Storage & ~Copyable>(reading storage: borrowing S, _ sink: FindingSink) throws(QCOW2Error) {
        try self.init(readingHead: storage, sink)
        try attempt(sink) { (reading) throws(QCOW2Error) in try reading.findBitmaps(storage, sink) }
        try attempt(sink) { (reading) throws(QCOW2Error) in try reading.readRefcountTable(storage, sink) }
    }

    /// Reads the head: the first cluster, the snapshot table, and of an encrypted image the LUKS header without its keys.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported`, `corrupt` or `inputOutput`; and what a strict
    ///   sink throws.
    init<S: Storage & ~Copyable>(readingHead storage: borrowing S, _ sink: FindingSink) throws(QCOW2Error) {
        bounds = FileBounds(byteCount: try storage.byteCount())
        let firstCluster = try Self.readFirstCluster(storage, bounds)
        fields = HeaderFields(firstCluster)
        for rule in HeaderFields.Rule.allCases {
            do throws(QCOW2Error) { try fields.check(rule) } catch {
                try sink.refuse(rule == .magic && fields.hasMagic ? .headerTruncated : rule.finding, error)
                guard fields.mayBeHeader else { throw error }
            }
        }
        guard let header = fields.header else { throw .notQCOW2() }
        self.header = header
        extensionArea = HeaderExtensionArea(end: Int(header.headerByteCount))
        let sectorByteCount = Int(ImageGeometry.sectorSize)
        let padding = [UInt8](repeating: 0, count: max(0, sectorByteCount - firstCluster.count))
        headerSector = Array(firstCluster.prefix(sectorByteCount)) + padding
        trees = [Tree(offset: HostOffset(0), entryCount: 0)]
        collected = MetadataTables(geometry: header.geometry, bounds: bounds)
        refcounts = RefcountTable(empty: header.geometry)

        try checkHeader(sink)
        try readExtensions(firstCluster, sink)
        try checkFeatures(sink)
        try checkEncryption(sink)
        try findActiveTree(sink)
        try findRefcountTable(sink)
        try attempt(sink) { (reading) throws(QCOW2Error) in try reading.findEncryptionHeader(storage, sink) }
        try attempt(sink) { (reading) throws(QCOW2Error) in try reading.readSnapshots(storage, sink) }
    }

    /// Reads a part, and passes over it when the file can't be read there, if whoever asks puts up with that.
    private mutating func attempt(
        _ sink: FindingSink, _ part: (inout ImageReading) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        do throws(QCOW2Error) { try part(&self) } catch  where error.code == .inputOutput {
            try sink.refuse(.readFailed, error)
            isComplete = false
        }
    }

    /// Reads the file's first cluster, as far as there is one.
    private static func readFirstCluster<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) -> [UInt8] {
        // Enough to decode the header and learn the cluster size; the extensions may take the whole first cluster.
        let start = try storage.readBytes(Int(min(bounds.byteCount, ImageGeometry.sectorSize)), at: HostOffset(0))
        guard start.count >= Header.Layout.clusterBits.end else { return start }
        let bits = Header.Layout.clusterBits.load(from: start.span)
        guard ImageGeometry.clusterBitsRange.contains(bits), 1 << bits > start.count else { return start }
        return try storage.readBytes(Int(min(bounds.byteCount, 1 << UInt64(bits))), at: HostOffset(0))
    }

    /// Adds a table, or the part of it that lies in the file.
    ///
    /// - Returns: How many of its bytes that are; `nil` if it can't be read at all.
    mutating func addTable(
        _ kind: MetadataTables.Table.Kind, _ field: String, at offset: HostOffset, _ byteCount: UInt64,
        from place: HostOffset, snapshotID: [UInt8] = [], _ sink: FindingSink
    ) throws(QCOW2Error) -> UInt64? {
        guard byteCount > 0 else { return 0 }
        let (geometry, bounds) = (geometry, bounds)
        let table = MetadataTables.Table(kind: kind, run: ClusterRun(first: 0, count: 1), snapshotID: snapshotID)
        let rule: FindingRule = kind == .refcountTable ? .refcountTableInvalid : .tableOutOfBounds
        guard offset.rawValue != 0, geometry.isAligned(offset) else {
            let why = "The \(table.name) can't be read: its offset \(offset) is not that of a cluster in the file."
            try sink.note(rule, QCOW2Error(.corrupt, why, at: place), in: table.name)
            isComplete = false
            return nil
        }
        if !bounds.contains(offset, byteCount: byteCount, in: geometry) {
            try sink.note(rule, .beyondEnd(field, offset, at: place), in: table.name)
            isComplete = false
        }
        guard offset.rawValue < bounds.byteCount else { return nil }
        let present = min(byteCount, fileClusterCount << UInt64(geometry.clusterBits) - offset.rawValue)
        collected.append(kind, at: offset, present, snapshotID: snapshotID)
        return present
    }

    mutating func addTree(
        _ field: String, at offset: HostOffset, entryCount: UInt64, from place: HostOffset,
        snapshotID: [UInt8]? = nil, _ sink: FindingSink
    ) throws(QCOW2Error) -> Tree? {
        let byteCount = min(entryCount, ImageGeometry.maximumL1EntryCount) * UInt64(L1Entry.byteCount)
        let kind: MetadataTables.Table.Kind = snapshotID == nil ? .activeL1 : .snapshotL1
        let present = try addTable(
            kind, field, at: offset, byteCount, from: place, snapshotID: snapshotID ?? [], sink)
        guard let present else {
            canMoveL2Tables = false
            return nil
        }
        if present < byteCount || entryCount > ImageGeometry.maximumL1EntryCount { canMoveL2Tables = false }
        return Tree(offset: offset, entryCount: Int(present) / L1Entry.byteCount, snapshotID: snapshotID)
    }
}
