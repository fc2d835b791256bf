// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What can be made out of an image's header and tables, whether they are right or not.
///
/// Reads everything except L1 and L2 tables and refcounts. What the strict way of opening refuses is noted here, and
/// left out. Only a header that says nothing about the rest is refused: another format, an unknown version or feature,
/// sizes that can't be.
struct CheckSubject: Sendable {
    /// The header; its refcount table is cut to what lies in the file.
    private(set) var header: Header
    private(set) var extensions: [HeaderExtension] = []
    /// The snapshots whose entries could be read and point to an L1 table, in table order.
    private(set) var snapshots: [Snapshot] = []
    /// The snapshots whose entries could be read, but point to no L1 table that could be.
    private(set) var unusableSnapshots: [Snapshot] = []
    /// Every L1 table that could be found; the active one first, even if there is none.
    private(set) var trees: [Tree]
    /// Bytes from the start of the snapshot table to the end of its last readable entry.
    private(set) var snapshotTableByteCount: UInt64 = 0
    /// Whether the snapshot table holds entries that need to be written anew.
    private(set) var needsSnapshotTable = false
    /// Every table whose clusters are counted once each.
    var tables: [MetadataTables.Table] { collected.tables }
    /// Refcount blocks and bitmap data, which are counted once each as well.
    var singles: SingleClusters { collected.singles }
    private var collected: MetadataTables
    private(set) var refcounts: RefcountTable
    /// Whether the image holds bitmaps that are consistent with the disk.
    private(set) var hasTrustedBitmaps = false
    /// Whether everything is known that could refer to a cluster.
    var isComplete = true
    /// Whether every L1 table lies in the file as a whole, so that it can be written anew.
    private(set) var canMoveL2Tables = true

    let bounds: FileBounds

    /// A snapshot, and its place in the table.
    struct Snapshot: Sendable {
        let entry: SnapshotTableEntry
        let index: Int
    }

    /// An L1 table, as far as it lies in the file.
    struct Tree: Sendable {
        let offset: HostOffset
        let entryCount: Int
        /// The ID of the snapshot whose table it is; `nil` for the active one.
        var snapshotID: [UInt8]?

        /// For messages.
        var name: String { name(or: .activeL1) }

        fileprivate func name(or kind: MetadataTables.Table.Kind) -> String {
            snapshotID.map { "L1 table of snapshot '\(escaped($0))'" } ?? kind.rawValue
        }
    }

    var geometry: ImageGeometry { header.geometry }
    var hasDataFile: Bool { header.incompatibleFeatures.contains(.externalDataFile) }
    /// The clusters of the file; the last one may be cut off.
    var fileClusterCount: UInt64 { geometry.clusterCount(forBytes: bounds.byteCount) }
    /// The clusters that are counted in windows: those of the file, up to where narrow refcounts start at a byte.
    var countedClusterCount: UInt64 { (fileClusterCount + 7) / 8 * 8 }

    /// Reads the subject, and notes what is wrong with it.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported`, `corrupt` or `inputOutput`.
    init<S: Storage & ~Copyable>(reading storage: borrowing S, _ sink: FindingSink) throws(QCOW2Error) {
        bounds = FileBounds(byteCount: try storage.byteCount())
        let firstCluster = try OpenedImage.readFirstCluster(storage, bounds)
        header = try Header(decodingFields: firstCluster.span)
        trees = [Tree(offset: HostOffset(0), entryCount: 0)]
        collected = MetadataTables(geometry: header.geometry, bounds: bounds)
        refcounts = RefcountTable(empty: header.geometry)

        try readExtensions(firstCluster, sink)
        try OpenedImage.checkKnownFeatures(header, extensions)
        try checkHeader(sink)
        try findActiveTree(sink)
        try readSnapshots(storage, sink)
        try findEncryptionHeader(storage, sink)
        try findBitmaps(storage, sink)
        try readRefcountTable(storage, sink)
    }

    /// Adds a table, or the part of it that lies in the file.
    ///
    /// - Returns: How many of its bytes that are; `nil` if it can't be read at all.
    private mutating func addTable(
        _ kind: MetadataTables.Table.Kind, at offset: HostOffset, _ byteCount: UInt64, from place: HostOffset,
        snapshotID: [UInt8]? = nil, _ sink: FindingSink
    ) throws(QCOW2Error) -> UInt64? {
        guard byteCount > 0 else { return 0 }
        let (geometry, bounds) = (geometry, bounds)
        func name() -> String { Tree(offset: offset, entryCount: 0, snapshotID: snapshotID).name(or: kind) }
        let rule: CheckRule = kind == .refcountTable ? .refcountTableInvalid : .tableOutOfBounds
        guard offset.rawValue != 0, geometry.isAligned(offset), offset.rawValue < bounds.byteCount else {
            sink.add(
                rule, at: place, in: name(),
                "The \(name()) can't be read: its offset \(offset) is not that of a cluster in the file.")
            isComplete = false
            return nil
        }
        if !bounds.contains(offset, byteCount: byteCount, in: geometry) {
            sink.add(rule, .beyondEnd(name(), offset, at: place), in: name())
            isComplete = false
        }
        let present = min(byteCount, fileClusterCount << UInt64(geometry.clusterBits) - offset.rawValue)
        collected.append(kind, at: offset, present, snapshotID: snapshotID ?? [])
        return present
    }

    private mutating func addTree(
        at offset: HostOffset, entryCount: UInt64, from place: HostOffset, snapshotID: [UInt8]? = nil,
        _ sink: FindingSink
    ) throws(QCOW2Error) -> Tree? {
        let byteCount = min(entryCount, ImageGeometry.maximumL1EntryCount) * UInt64(L1Entry.byteCount)
        let kind: MetadataTables.Table.Kind = snapshotID == nil ? .activeL1 : .snapshotL1
        guard let present = try addTable(kind, at: offset, byteCount, from: place, snapshotID: snapshotID, sink) else {
            canMoveL2Tables = false
            return nil
        }
        if present < byteCount || entryCount > ImageGeometry.maximumL1EntryCount { canMoveL2Tables = false }
        return Tree(offset: offset, entryCount: Int(present) / L1Entry.byteCount, snapshotID: snapshotID)
    }
}

extension CheckSubject {
    private mutating func readExtensions(_ firstCluster: [UInt8], _ sink: FindingSink) throws(QCOW2Error) {
        var area = firstCluster
        var areaEnd = geometry.clusterByteCount
        let name = header.backingFileOffset.rawValue
        if name != 0, name >= UInt64(header.headerByteCount), name <= geometry.clusterSize { areaEnd = Int(name) }
        area.append(contentsOf: repeatElement(0, count: max(0, areaEnd - area.count)))
        var found: [HeaderExtension] = []
        do throws(QCOW2Error) {
            try HeaderExtension.decode(
                in: area.span.extracting(..<areaEnd), from: Int(header.headerByteCount), into: &found)
        } catch  where error.code == .corrupt {
            sink.add(.extensionInvalid, error, in: "header extensions", index: UInt64(found.count))
            // The encryption header and the bitmaps may be among those that can't be read.
            isComplete = false
        }
        extensions = found
        for (index, record) in found.enumerated() {
            guard found[..<index].contains(where: { $0.kind == record.kind }), record.kind.isKnown else { continue }
            sink.add(
                .extensionDuplicate, at: record.offset, in: "header extensions", index: UInt64(index),
                "The header extension 0x\(String(record.kind.rawValue, radix: 16)) appears more than once.")
        }
    }

    /// Invariants I-1, I-2, I-4, I-10 and I-31, as far as the header can be used without them.
    private func checkHeader(_ sink: FindingSink) throws(QCOW2Error) {
        for check in Header.Check.allCases {
            _ = try sink.check(check.rule, in: "header") { () throws(QCOW2Error) in try header.perform(check) }
        }
        if header.headerByteCount % 8 != 0 {
            sink.add(
                .headerLengthOdd, at: Header.Layout.headerLength.place, in: "header",
                "The header's length of \(header.headerByteCount) bytes is no multiple of 8.")
        }
        let features = header.incompatibleFeatures
        if header.autoclearFeatures.contains(.rawExternalData),
            !features.contains(.externalDataFile) || header.backingFileOffset.rawValue != 0
        {
            sink.add(
                .featuresContradict, at: Header.Layout.autoclearFeatures.place, in: "header",
                "The header says that an external data file is a raw disk by itself, but "
                    + (features.contains(.externalDataFile) ? "there is a backing file." : "there is none."))
        }
        if features.contains(.dirty) {
            sink.add(
                .markedDirty, at: Header.Layout.incompatibleFeatures.place, in: "header",
                "The image is marked dirty: the last writer didn't close it.")
        }
        if features.contains(.corrupt) {
            sink.add(
                .markedCorrupt, at: Header.Layout.incompatibleFeatures.place, in: "header",
                "The image is marked corrupt: a writer found its metadata damaged.")
        }
    }

    private mutating func findActiveTree(_ sink: FindingSink) throws(QCOW2Error) {
        let needed = geometry.l1EntryCount(forDiskSize: header.size)
        // Further entries may lie behind, and what they point to.
        if UInt64(header.l1EntryCount) < needed || header.l1EntryCount > ImageGeometry.maximumL1EntryCount {
            isComplete = false
        }
        let tree = try addTree(
            at: header.l1TableOffset, entryCount: UInt64(header.l1EntryCount),
            from: Header.Layout.l1TableOffset.place, sink)
        if let tree { trees[0] = tree }
    }

    /// Invariants I-25 to I-28.
    private mutating func readSnapshots<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard header.snapshotCount > 0 else { return }
        var rules = SnapshotRules(header: header)
        do throws(QCOW2Error) {
            guard geometry.isAligned(header.snapshotTableOffset), header.snapshotTableOffset.rawValue != 0 else {
                throw .misaligned("snapshots_offset", header.snapshotTableOffset, at: HostOffset(64))
            }
            var reader = try SnapshotTableReader(header, bounds)
            defer { snapshotTableByteCount = UInt64(reader.byteCount) }
            for index in 0..<Int(min(header.snapshotCount, Header.maximumSnapshotCount)) {
                let found = try reader.next(from: storage)
                try addSnapshot(found, index, &rules, sink)
            }
            if header.snapshotCount > Header.maximumSnapshotCount { isComplete = false }
        } catch  where error.code == .corrupt {
            // Where the next entry starts is unknown, too.
            sink.add(.snapshotTableInvalid, error, in: "snapshot table", index: UInt64(rules.entryCount))
            isComplete = false
        }
        let byteCount = snapshotTableByteCount
        _ = try addTable(
            .snapshotTable, at: header.snapshotTableOffset, byteCount, from: Header.Layout.snapshotsOffset.place, sink)
    }

    private mutating func addSnapshot(
        _ found: SnapshotTableReader.Found, _ index: Int, _ rules: inout SnapshotRules, _ sink: FindingSink
    ) throws(QCOW2Error) {
        let entry = found.entry
        if rules.check(found, index, sink) { needsSnapshotTable = true }
        if rules.hidesReferences { isComplete = false }
        var isUsable = true
        do throws(QCOW2Error) {
            try entry.checkL1Table(at: found.offset, in: geometry)
            guard entry.l1EntryCount == 0 || entry.l1TableOffset.rawValue < bounds.byteCount else {
                throw .beyondEnd("l1_table_offset of a snapshot", entry.l1TableOffset, at: found.offset)
            }
        } catch  where error.code == .corrupt {
            sink.add(.snapshotEntryInvalid, error, in: "snapshot table", index: UInt64(index))
            isUsable = false
            isComplete = false
        }
        var tree: Tree?
        if isUsable {
            tree = try addTree(
                at: entry.l1TableOffset, entryCount: UInt64(entry.l1EntryCount), from: found.offset,
                snapshotID: entry.id, sink)
        }
        guard let tree else {
            unusableSnapshots.append(Snapshot(entry: entry, index: index))
            return
        }
        snapshots.append(Snapshot(entry: entry, index: index))
        trees.append(tree)
    }

    /// Invariant I-5.
    private mutating func findEncryptionHeader<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        let isConsistent = try sink.check(.encryptionInvalid, in: "header") { () throws(QCOW2Error) in
            try OpenedImage.checkEncryption(header, extensions)
        }
        if !isConsistent { isComplete = isComplete && header.encryption != .luks }
        guard let record = extensions.last(.encryption) else { return }
        do throws(QCOW2Error) {
            let encryption = try EncryptionHeader(decoding: record, in: geometry)
            _ = try addTable(
                .encryption, at: encryption.region, encryption.regionByteCount, from: record.offset, sink)
            if header.encryption == .luks {
                try encryption.check(LUKSHeader(reading: storage, at: encryption.region), from: record)
            }
        } catch  where error.code == .corrupt {
            sink.add(.encryptionInvalid, error, in: "header extensions")
            isComplete = false
        }
    }

    /// Invariants I-5 and I-6.
    private mutating func findBitmaps<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard header.autoclearFeatures.contains(.bitmaps) else { return }
        guard let record = extensions.last(.bitmaps) else {
            sink.add(
                .bitmapsMissing, at: Header.Layout.autoclearFeatures.place, in: "header",
                "The header promises bitmaps, but has no bitmaps extension.")
            return
        }
        hasTrustedBitmaps = true
        var bitmaps = MetadataTables(geometry: geometry, bounds: bounds)
        do throws(QCOW2Error) {
            try bitmaps.addBitmaps(of: header, [record], reading: storage)
        } catch  where error.code == .corrupt {
            sink.add(.bitmapsInvalid, error, in: "bitmaps")
            isComplete = false
        }
        collected.takeBitmaps(of: bitmaps)
    }

    /// Invariants I-7 and I-19.
    private mutating func readRefcountTable<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        let most = ImageGeometry.maximumRefcountTableByteCount >> UInt64(geometry.clusterBits)
        let byteCount = min(UInt64(header.refcountTableClusterCount), most) * geometry.clusterSize
        let wasComplete = isComplete
        let present = try addTable(
            .refcountTable, at: header.refcountTableOffset, byteCount, from: Header.Layout.refcountTableOffset.place,
            sink)
        // Refcounts that can't be read hide no reference.
        isComplete = wasComplete
        header.refcountTableClusterCount = UInt32(geometry.clusterCount(forBytes: present ?? 0))
        if present == nil { header.refcountTableOffset = HostOffset(0) }
        guard header.refcountTableClusterCount > 0 else { return }
        refcounts = try RefcountTable(reading: header, storage, bounds) { (defect, index, error) in
            let rule = defect == .listedTwice ? CheckRule.refcountBlockTwice : .refcountTableEntryInvalid
            sink.add(rule, error, in: "refcount table", index: UInt64(index))
        }
        collected.addBlocks(of: refcounts)
    }
}

extension HeaderExtension.Kind {
    /// Whether the format says what this kind is.
    var isKnown: Bool {
        switch self {
        case .end, .backingFileFormat, .featureNames, .bitmaps, .encryption, .externalDataFileName: true
        default: false
        }
    }
}

extension Header.Check {
    /// What its refusal is a finding of.
    fileprivate var rule: CheckRule {
        switch self {
        case .refcountTableClusterCount, .refcountTableOffset: .refcountTableInvalid
        case .snapshotCount, .snapshotTableOffset: .snapshotTableInvalid
        default: .headerFieldInvalid
        }
    }
}

extension Field {
    /// Where the field of a header is in the file.
    var place: HostOffset { HostOffset(UInt64(offset)) }
}
