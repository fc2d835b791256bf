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

    /// The L1 tables, as far as they can be read; the active one first, then the snapshots' in table order.
    private let trees: [L1Place]

    /// Where an L1 table is; of a damaged image, the part of it that lies in the file.
    private struct L1Place: Sendable {
        let offset: HostOffset
        let entryCount: Int

        init(_ tree: ImageReading.Tree) { (offset, entryCount) = (tree.offset, tree.entryCount) }

        init(_ offset: HostOffset, _ entryCount: UInt32) { (self.offset, self.entryCount) = (offset, Int(entryCount)) }
    }

    /// The active tree's number; the snapshots' follow in table order.
    static let activeTree = 0
    var treeCount: Int { trees.count }

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
        trees =
            [L1Place(header.l1TableOffset, header.l1EntryCount)]
            + entries.map { L1Place($0.l1TableOffset, $0.l1EntryCount) }
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
        var snapshots = zip(subject.snapshots, subject.trees.dropFirst().map(L1Place.init)).map { ($0, $1) }
        if keepsUnusableSnapshots {
            snapshots += subject.unusableSnapshots.map { ($0, L1Place(HostOffset(0), 0)) }
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
        trees = [L1Place(subject.trees[0])] + snapshots.map(\.1)
    }

    /// Bytes of a tree's L1 table.
    func l1ByteCount(of tree: Int) -> UInt64 { UInt64(trees[tree].entryCount * L1Entry.byteCount) }

    /// The L1 tables, and what their entries count for.
    ///
    /// For each tree, `uses` says how many trees of the new state have its mappings; `activeTree` is the one whose
    /// mappings the new active tree has. Entries of the old active table that are `dropped` count for the old state
    /// alone.
    func l1Parts(uses: [UInt32], activeTree: Int, dropping dropped: [Range<Int>] = []) -> [L1Part] {
        var parts: [L1Part] = []
        for tree in 0..<treeCount {
            let (offset, entryCount) = (trees[tree].offset, trees[tree].entryCount)
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
        let (offset, entryCount) = (trees[tree].offset, trees[tree].entryCount)
        try L1Stretches([L1Part(offset: offset, entryCount: entryCount, tree: tree)]).forEachEntry(
            reading: storage, &work
        ) { (_, index, entry) throws(QCOW2Error) in try body(index, entry) }
    }

    /// Reads a tree's L1 table, whatever its entries are: ``l2Tables(_:reading:_:note:)`` is what refuses them.
    func readTree<S: Storage & ~Copyable>(_ tree: Int, from storage: borrowing S) throws(QCOW2Error) -> [L1Entry] {
        let place = trees[tree]
        // In two steps: the span of a value that `try` just returned crashes the compiler of Swift 6.3.1.
        let bytes = try storage.readBytes(place.entryCount * L1Entry.byteCount, at: place.offset)
        return L1Entry.decodeTable(bytes.span)
    }

    /// Reads a tree's L1 table, and refuses an entry that can't be.
    func readSoundTree<S: Storage & ~Copyable>(
        _ tree: Int, from storage: borrowing S
    ) throws(QCOW2Error) -> [L1Entry] {
        let entries = try readTree(tree, from: storage)
        for (index, entry) in entries.enumerated() where entry.rawValue != 0 {
            let place = trees[tree].offset.saturating(adding: UInt64(index * L1Entry.byteCount))
            try entry.check(index, at: place, geometry, bounds)
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
