// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Everything an image's metadata says, except the contents of L2 tables: what an operation plans from.
struct ImageState: Sendable {
    let header: Header
    let entries: [SnapshotTableEntry]
    let fileByteCount: UInt64
    let refcounts: RefcountTable
    /// Every table whose clusters are counted once each.
    let tables: [MetadataTables.Table]
    /// Refcount blocks and bitmap data, which are counted once each as well.
    let singles: SingleClusters
    /// Bytes from the start of the snapshot table to the end of its last entry.
    let snapshotTableByteCount: UInt64

    /// Whether the image holds bitmaps that are consistent with the disk.
    let hasTrustedBitmaps: Bool

    /// The L1 tables of a damaged image, as far as they can be read; `nil` where they are as header and entries say.
    private let damagedTrees: [ImageReading.Tree]?

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
        try collected.addBitmaps(of: header, opened.extensions, reading: storage)
        // Before any table is read, so that no two entries make us read the same bytes over and over.
        try collected.checkDisjoint()

        refcounts = try RefcountTable(reading: header, storage, bounds)
        collected.addBlocks(of: refcounts)
        try collected.checkDisjoint()

        self.header = header
        self.entries = entries
        damagedTrees = nil
        hasTrustedBitmaps = collected.tables.contains { $0.kind.isBitmap }
        snapshotTableByteCount = opened.snapshotTableByteCount
        self.fileByteCount = bounds.byteCount
        tables = collected.tables
        singles = collected.singles
    }

    /// The state of a damaged image, as far as it could be read, to plan its repair from.
    ///
    /// - Parameters:
    ///   - subject: What could be read.
    ///   - keepsUnusableSnapshots: Whether it has the snapshots whose entries point to no L1 table that could be read;
    ///     with empty ones.
    init(repairing subject: ImageReading, keepsUnusableSnapshots: Bool) {
        let noTree = ImageReading.Tree(offset: HostOffset(0), entryCount: 0)
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
        singles = subject.singles
        snapshotTableByteCount = subject.snapshotTableByteCount
        hasTrustedBitmaps = subject.hasTrustedBitmaps
        damagedTrees = [subject.trees[0]] + snapshots.map(\.1)
    }

    /// Where a tree's L1 table is, as far as it can be read.
    private func place(of tree: Int) -> (offset: HostOffset, entryCount: Int) {
        if let damaged = damagedTrees?[tree] { return (damaged.offset, damaged.entryCount) }
        return tree == Self.activeTree
            ? (header.l1TableOffset, Int(header.l1EntryCount))
            : (entries[tree - 1].l1TableOffset, Int(entries[tree - 1].l1EntryCount))
    }

    /// Bytes of a tree's L1 table.
    func l1ByteCount(of tree: Int) -> UInt64 { UInt64(place(of: tree).entryCount * L1Entry.byteCount) }

    /// The L1 tables, and what their entries count for.
    ///
    /// For each tree, `uses` says how many trees of the new state have its mappings; `activeTree` is the one whose
    /// mappings the new active tree has. Entries of the old active table that are `dropped` count for the old state
    /// alone.
    func l1Parts(uses: [UInt32], activeTree: Int, dropping dropped: [Range<Int>] = []) -> [L1Part] {
        var parts: [L1Part] = []
        for tree in 0..<treeCount {
            let (offset, entryCount) = place(of: tree)
            func add(_ range: Range<Int>, isDropped: Bool) {
                guard !range.isEmpty else { return }
                parts.append(
                    L1Part(
                        offset: offset.saturating(adding: UInt64(range.lowerBound * L1Entry.byteCount)),
                        entryCount: range.count, firstIndex: range.lowerBound, newWeight: isDropped ? 0 : uses[tree],
                        isActive: !isDropped && tree == activeTree, tree: tree))
            }
            var first = 0
            for range in tree == Self.activeTree ? dropped : [] {
                let range = range.clamped(to: first..<max(first, entryCount))
                add(first..<range.lowerBound, isDropped: false)
                add(range, isDropped: true)
                first = max(first, range.upperBound)
            }
            add(first..<max(first, entryCount), isDropped: false)
        }
        return parts
    }

    /// Collects the L2 tables of all trees, and refuses an L1 entry that can't be.
    ///
    /// Calls `note` with the stretch of every entry that points to a table, and with the table's index.
    func l2Tables<S: Storage & ~Copyable>(
        _ parts: [L1Part], reading storage: borrowing S, _ work: inout WorkMeter,
        note: (_ stretch: L1Stretches.Stretch, _ table: Int) -> Void = { _, _ in }
    ) throws(QCOW2Error) -> L2Tables {
        let stretches = L1Stretches(parts)
        return try L2Tables(stretches, reading: storage, &work) {
            $0.l2Table
        } note: {
            (number, index, entry, table) throws(QCOW2Error) in
            let stretch = stretches.stretches[number]
            let place = stretch.offset.saturating(adding: UInt64(index * L1Entry.byteCount))
            try entry.check(stretch.firstIndex + index, at: place, geometry, bounds)
            if let table { note(stretch, table) }
        }
    }

    /// Calls `body` with every entry of a tree's L1 table that isn't zero.
    func forEachL1Entry<S: Storage & ~Copyable>(
        of tree: Int, reading storage: borrowing S, _ work: inout WorkMeter,
        _ body: (_ index: Int, _ entry: L1Entry) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let (offset, entryCount) = place(of: tree)
        try L1Stretches([L1Part(offset: offset, entryCount: entryCount, tree: tree)]).forEachEntry(
            reading: storage, &work
        ) { (_, index, entry) throws(QCOW2Error) in try body(index, entry) }
    }

    /// Reads and checks a tree's L1 table; of a damaged image, without the checks.
    func readTree<S: Storage & ~Copyable>(_ tree: Int, from storage: borrowing S) throws(QCOW2Error) -> [L1Entry] {
        let (offset, entryCount) = place(of: tree)
        // In two steps: the span of a value that `try` just returned crashes the compiler of Swift 6.3.1.
        let bytes = try storage.readBytes(entryCount * L1Entry.byteCount, at: offset)
        let entries = L1Entry.decodeTable(bytes.span)
        guard damagedTrees == nil else { return entries }
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
