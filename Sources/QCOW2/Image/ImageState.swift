// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Everything an image's metadata says, except the contents of L2 tables: what an operation plans from.
struct ImageState: Sendable {
    let header: Header
    let entries: [SnapshotTableEntry]
    let fileByteCount: UInt64
    let refcounts: RefcountTable
    /// Every table whose clusters are counted once each, with its name for messages.
    let tables: [MetadataTables.Table]
    /// Bytes from the start of the snapshot table to the end of its last entry.
    let snapshotTableByteCount: UInt64

    /// Whether the image holds bitmaps that are consistent with the disk.
    let hasTrustedBitmaps: Bool

    /// The L1 tables of a damaged image, as far as they can be read; `nil` where they are as header and entries say.
    private let damagedTrees: [CheckSubject.Tree]?

    /// The active tree's number; the snapshots' follow in table order.
    static let activeTree = 0
    var treeCount: Int { entries.count + 1 }

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

        refcounts = try RefcountTable(reading: header, storage, bounds)
        for offset in refcounts.blockOffsets {
            if let offset { try collected.add(.refcountBlock, "refcount block", at: offset, geometry.clusterSize) }
        }
        try collected.checkDisjoint()

        self.header = header
        self.entries = entries
        damagedTrees = nil
        hasTrustedBitmaps = collected.tables.contains { $0.kind == .bitmap }
        snapshotTableByteCount = opened.snapshotTableByteCount
        self.fileByteCount = bounds.byteCount
        tables = collected.tables
    }

    /// The state of a damaged image, as far as it could be read, to plan its repair from.
    ///
    /// - Parameters:
    ///   - subject: What could be read.
    ///   - keepsUnusableSnapshots: Whether it has the snapshots whose entries point to no L1 table that could be read;
    ///     with empty ones.
    init(repairing subject: CheckSubject, keepsUnusableSnapshots: Bool) {
        let noTree = CheckSubject.Tree(offset: HostOffset(0), entryCount: 0, name: "L1 table of no use")
        var snapshots = Array(zip(subject.snapshots, subject.trees.dropFirst()))
        if keepsUnusableSnapshots {
            snapshots += subject.unusableSnapshots.map { ($0, noTree) }
            snapshots.sort { $0.0.index < $1.0.index }
        }
        header = subject.header
        entries = snapshots.map(\.0.entry)
        fileByteCount = subject.bounds.byteCount
        refcounts = subject.refcounts
        tables = subject.tables
        snapshotTableByteCount = subject.snapshotTableByteCount
        hasTrustedBitmaps = subject.hasTrustedBitmaps
        damagedTrees = [subject.trees[0]] + snapshots.map(\.1)
    }

    /// Reads and checks a tree's L1 table; of a damaged image, without the checks.
    func readTree<S: Storage & ~Copyable>(_ tree: Int, from storage: borrowing S) throws(QCOW2Error) -> [L1Entry] {
        if let damaged = damagedTrees?[tree] {
            let bytes = try storage.readBytes(damaged.entryCount * L1Entry.byteCount, at: damaged.offset)
            return L1Entry.decodeTable(bytes.span)
        }
        let (offset, entryCount) =
            tree == Self.activeTree
            ? (header.l1TableOffset, header.l1EntryCount)
            : (entries[tree - 1].l1TableOffset, entries[tree - 1].l1EntryCount)
        // In two steps: the span of a value that `try` just returned crashes the compiler of Swift 6.3.1.
        let bytes = try storage.readBytes(Int(entryCount) * L1Entry.byteCount, at: offset)
        let entries = L1Entry.decodeTable(bytes.span)
        for (index, entry) in entries.enumerated() where entry.rawValue != 0 {
            try entry.check(index, at: offset.saturating(adding: UInt64(index * L1Entry.byteCount)), geometry, bounds)
        }
        return entries
    }
}

extension L1Entry {
    /// Checks an entry that isn't all zeros.
    ///
    /// Invariants I-7, I-8 and I-11.
    func check(_ index: Int, at place: HostOffset, _ geometry: ImageGeometry, _ bounds: FileBounds) throws(QCOW2Error) {
        let name = "L1 entry \(index)"
        guard !hasReservedBits else { throw .reservedBits(name, rawValue, at: place) }
        guard let l2Table else { throw .invalid(name, "the L2 table would lie in the header's cluster", at: place) }
        guard geometry.isAligned(l2Table) else { throw .misaligned(name, l2Table, at: place) }
        guard l2Table.rawValue < bounds.byteCount else { throw .beyondEnd(name, l2Table, at: place) }
    }
}
