// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What opening an image reads: the header with its extensions, of an encrypted one the LUKS header without its keys,
/// and the snapshot table.
///
/// Nothing here is trusted until it has been checked against the format and the file's length.
struct OpenedImage {
    let header: Header
    let extensions: [HeaderExtension]
    let entries: [SnapshotTableEntry]
    /// Bytes from the start of the snapshot table to the end of its last entry.
    let snapshotTableByteCount: UInt64

    init(
        header: Header, extensions: [HeaderExtension], entries: [SnapshotTableEntry], snapshotTableByteCount: UInt64
    ) {
        self.header = header
        self.extensions = extensions
        self.entries = entries
        self.snapshotTableByteCount = snapshotTableByteCount
    }

    init<S: Storage & ~Copyable>(reading storage: borrowing S) throws(QCOW2Error) {
        let bounds = FileBounds(byteCount: try storage.byteCount())
        var firstCluster = try Self.readFirstCluster(storage, bounds)
        header = try Header(decoding: firstCluster.span)
        let geometry = header.geometry

        var areaEnd = geometry.clusterByteCount
        if header.backingFileOffset.rawValue != 0 { areaEnd = Int(header.backingFileOffset.rawValue) }
        // Bytes past the end of the file read as zeros, which an END record is made of.
        firstCluster.append(contentsOf: repeatElement(0, count: max(0, areaEnd - firstCluster.count)))
        extensions = try HeaderExtension.decodeAll(
            in: firstCluster.span.extracting(..<areaEnd), from: Int(header.headerByteCount))
        try Self.checkFeatures(header, extensions)

        try bounds.checkTable(
            "l1_table_offset", header.l1TableOffset, byteCount: UInt64(header.l1EntryCount) * 8, in: geometry,
            at: HostOffset(40))
        try bounds.checkTable(
            "refcount_table_offset", header.refcountTableOffset,
            byteCount: UInt64(header.refcountTableClusterCount) * geometry.clusterSize, in: geometry,
            at: HostOffset(48))
        if header.encryption == .luks, let record = extensions.last(.encryption) {
            let encryption = try EncryptionHeader(decoding: record, in: geometry)
            try bounds.checkTable(
                EncryptionHeader.Layout.offset.name, encryption.region, byteCount: encryption.regionByteCount,
                in: geometry, at: record.offset)
            try encryption.check(LUKSHeader(reading: storage, at: encryption.region), from: record)
        }
        (entries, snapshotTableByteCount) = try Self.readSnapshotTable(header, storage, bounds)
    }

    /// Reads the file's first cluster, as far as there is one.
    static func readFirstCluster<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) -> [UInt8] {
        // Enough to decode the header and learn the cluster size; the extensions may take the whole first cluster.
        let start = try storage.readBytes(Int(min(bounds.byteCount, ImageGeometry.sectorSize)), at: HostOffset(0))
        guard let declared = declaredClusterByteCount(start.span), declared > start.count else { return start }
        return try storage.readBytes(Int(min(bounds.byteCount, UInt64(declared))), at: HostOffset(0))
    }

    /// The cluster size that an undecoded header claims, if it is one that the format allows.
    private static func declaredClusterByteCount(_ start: Span<UInt8>) -> Int? {
        guard start.count >= Header.Layout.clusterBits.end else { return nil }
        let bits = Header.Layout.clusterBits.load(from: start)
        return ImageGeometry.clusterBitsRange.contains(bits) ? 1 << Int(bits) : nil
    }

    /// Refuses what must not be opened at all: invariants I-2 and I-5.
    private static func checkFeatures(_ header: Header, _ extensions: [HeaderExtension]) throws(QCOW2Error) {
        try checkKnownFeatures(header, extensions)
        try checkEncryption(header, extensions)
    }

    /// Refuses features that aren't known, or that contradict each other so that no cluster could be read.
    static func checkKnownFeatures(_ header: Header, _ extensions: [HeaderExtension]) throws(QCOW2Error) {
        let place = HostOffset(UInt64(Header.Layout.incompatibleFeatures.offset))
        let unknown = header.incompatibleFeatures.subtracting(.known).rawValue
        if unknown != 0 {
            let names = (UInt8(0)..<64).filter { unknown >> UInt64($0) & 1 == 1 }.map { bit in
                extensions.incompatibleFeatureName(bit: bit).map { "'\(escaped($0.utf8))'" } ?? "bit \(bit)"
            }
            throw QCOW2Error(
                .unsupported, "The image uses unknown incompatible features: \(names.joined(separator: ", ")).",
                at: place)
        }
        guard header.compressionType != nil else {
            throw QCOW2Error(
                .unsupported, "The image uses the unknown compression type \(header.rawCompressionType).",
                at: HostOffset(UInt64(Header.Layout.compressionType.offset)))
        }
        if header.incompatibleFeatures.contains(.compressionType) != (header.compressionType != .deflate) {
            throw .invalid(
                Header.Layout.compressionType.name, "it contradicts the compression type feature bit",
                at: HostOffset(UInt64(Header.Layout.compressionType.offset)))
        }
    }

    /// Checks that there is an encryption extension exactly where there should be one.
    static func checkEncryption(_ header: Header, _ extensions: [HeaderExtension]) throws(QCOW2Error) {
        let encryption = extensions.last(.encryption)
        if (encryption != nil) != (header.encryption == .luks) {
            throw .invalid(
                Header.Layout.cryptMethod.name, "it contradicts the encryption extension",
                at: HostOffset(UInt64(Header.Layout.cryptMethod.offset)))
        }
    }

    /// Reads the snapshot table, and refuses it for any entry that can't be.
    private static func readSnapshotTable<S: Storage & ~Copyable>(
        _ header: Header, _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) -> ([SnapshotTableEntry], byteCount: UInt64) {
        guard header.snapshotCount > 0 else { return ([], 0) }
        var reader = try SnapshotTableReader(header, bounds)
        var entries: [SnapshotTableEntry] = []
        for _ in 0..<header.snapshotCount {
            let found = try reader.next(from: storage)
            try found.check(in: header.geometry, bounds)
            entries.append(found.entry)
        }
        return (entries, UInt64(reader.byteCount))
    }
}

/// The file's length, and what may lie where in it.
///
/// Invariant I-7.
struct FileBounds: Hashable, Sendable {
    let byteCount: UInt64

    /// Checks that a table ends less than one cluster past the end of the file: the rest of its last cluster reads as
    /// zeros, and anything further out would be a table that doesn't exist.
    func checkTable(
        _ field: String, _ offset: HostOffset, byteCount tableByteCount: UInt64, in geometry: ImageGeometry,
        at place: HostOffset
    ) throws(QCOW2Error) {
        guard contains(offset, byteCount: tableByteCount, in: geometry) else {
            throw .beyondEnd(field, offset, at: place)
        }
    }

    /// Whether a table ends less than one cluster past the end of the file; an empty one is anywhere.
    func contains(_ offset: HostOffset, byteCount tableByteCount: UInt64, in geometry: ImageGeometry) -> Bool {
        guard tableByteCount > 0 else { return true }
        let (end, overflow) = offset.rawValue.addingReportingOverflow(tableByteCount)
        return !overflow && end < 1 << 63 && offset.rawValue < byteCount && end < byteCount + geometry.clusterSize
    }
}
