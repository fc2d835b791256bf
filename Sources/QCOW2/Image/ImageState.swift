// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Everything an image's metadata says, except the contents of L2 tables: what an operation plans from.
struct ImageState: Sendable {
    let header: Header
    let entries: [SnapshotTableEntry]
    let fileByteCount: UInt64
    /// The L1 tables: the active one first, then the snapshots' in table order.
    let trees: [[L1Entry]]
    let refcounts: StoredRefcounts
    /// Every table whose clusters are counted once each, with its name for messages.
    let tables: [MetadataTables.Table]
    /// Bytes from the start of the snapshot table to the end of its last entry.
    let snapshotTableByteCount: UInt64

    /// Whether the image holds bitmaps that are consistent with the disk.
    let hasTrustedBitmaps: Bool

    /// The index of the active tree in ``trees``.
    static let activeTree = 0

    var geometry: ImageGeometry { header.geometry }
    var bounds: FileBounds { FileBounds(byteCount: fileByteCount) }

    /// Reads the state, bounded by the file's length.
    init<S: Storage & ~Copyable>(
        _ opened: OpenedImage, reading storage: borrowing S
    ) throws(QCOW2Error) {
        let (header, entries) = (opened.header, opened.entries)
        let geometry = header.geometry
        let bounds = FileBounds(byteCount: try storage.byteCount())
        var collected = MetadataTables(geometry: geometry, bounds: bounds)
        try collected.addTables(of: opened)
        try collected.addBitmaps(of: opened, reading: storage)
        // Before any table is read, so that no two entries make us read the same bytes over and over.
        try collected.checkDisjoint()

        refcounts = try StoredRefcounts(reading: header, storage, bounds)
        for offset in refcounts.blockOffsets {
            if let offset { try collected.add(.refcountBlock, "refcount block", at: offset, geometry.clusterSize) }
        }
        var trees = [try Self.readL1(header.l1TableOffset, header.l1EntryCount, storage, bounds)]
        for entry in entries { trees.append(try Self.readL1(entry.l1TableOffset, entry.l1EntryCount, storage, bounds)) }
        for tree in trees { try Self.check(tree, geometry, bounds) }

        self.header = header
        self.entries = entries
        hasTrustedBitmaps = collected.tables.contains { $0.kind == .bitmap }
        snapshotTableByteCount = opened.snapshotTableByteCount
        self.fileByteCount = bounds.byteCount
        self.trees = trees
        tables = collected.tables
    }

    private static func readL1<S: Storage & ~Copyable>(
        _ offset: HostOffset, _ entryCount: UInt32, _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) -> [L1Entry] {
        // In two steps: the span of a value that `try` just returned crashes the compiler of Swift 6.3.1.
        let bytes = try storage.readBytes(Int(entryCount) * L1Entry.byteCount, at: offset)
        return L1Entry.decodeTable(bytes.span)
    }

    private static func check(_ tree: [L1Entry], _ geometry: ImageGeometry, _ bounds: FileBounds) throws(QCOW2Error) {
        for (index, entry) in tree.enumerated() where entry.rawValue != 0 {
            let name = "L1 entry \(index)"
            guard !entry.hasReservedBits else {
                throw .reservedBits(name, entry.rawValue, at: HostOffset(entry.rawValue))
            }
            guard let offset = entry.l2Table else { continue }
            guard geometry.isAligned(offset) else { throw .misaligned(name, offset, at: offset) }
            guard offset.rawValue < bounds.byteCount else { throw .beyondEnd(name, offset, at: offset) }
        }
    }
}
