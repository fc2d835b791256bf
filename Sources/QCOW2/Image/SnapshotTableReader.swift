// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads a snapshot table entry by entry, in pieces, so that the work is bounded by the table's real length.
struct SnapshotTableReader {
    private let start: HostOffset
    private let isVersion2: Bool
    /// The most bytes that the table can have.
    private let limit: UInt64
    private let isCut: Bool
    /// A part of the table: what lies before the next entry is forgotten.
    private var bytes: [UInt8] = []
    /// Where in the table ``bytes`` starts.
    private var bytesStart = 0
    /// Bytes from the start of the table to the end of the last entry that was read.
    private(set) var byteCount = 0

    /// How many bytes are read at once.
    private static let pieceByteCount: UInt64 = 1 << 18

    /// An entry, wherever its L1 table is said to be.
    struct Found {
        let entry: SnapshotTableEntry
        let offset: HostOffset
        let extraByteCount: UInt32

        /// Checks where the L1 table is.
        func check(in geometry: ImageGeometry, _ bounds: FileBounds) throws(QCOW2Error) {
            try entry.checkL1Table(at: offset, in: geometry)
            try bounds.checkTable(
                "l1_table_offset of a snapshot", entry.l1TableOffset, byteCount: UInt64(entry.l1EntryCount) * 8,
                in: geometry, at: offset)
        }
    }

    /// A reader of the table that the header points to.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` when that is past the end of the file.
    init(_ header: Header, _ bounds: FileBounds) throws(QCOW2Error) {
        try self.init(at: header.snapshotTableOffset, isVersion2: header.isVersion2, bounds)
    }

    /// A reader of the table at an offset.
    init(at offset: HostOffset, isVersion2: Bool, _ bounds: FileBounds) throws(QCOW2Error) {
        start = offset
        self.isVersion2 = isVersion2
        guard start.rawValue < bounds.byteCount else {
            throw .beyondEnd(
                Header.Layout.snapshotsOffset.name, start, at: HostOffset(UInt64(Header.Layout.snapshotsOffset.offset)))
        }
        limit = min(bounds.byteCount - start.rawValue, SnapshotTableEntry.maximumTableByteCount)
        isCut = limit < bounds.byteCount - start.rawValue
    }

    /// Reads the next entry.
    ///
    /// - Parameters:
    ///   - storage: The image's file.
    ///   - show: Called with the table's bytes from the entry on, before it is known whether they are one.
    /// - Returns: The entry, and where it is.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry whose end can't be found; no other can be read then.
    mutating func next<S: Storage & ~Copyable>(
        from storage: borrowing S, showing show: (_ offset: HostOffset, _ bytes: Span<UInt8>) -> Void = { _, _ in }
    ) throws(QCOW2Error) -> Found {
        let position = (byteCount + 7) / 8 * 8
        let end = bytesStart + bytes.count
        if UInt64(end) < limit, end - position < SnapshotTableEntry.maximumByteCount {
            let known = position < end ? Array(bytes[(position - bytesStart)...]) : []
            let next = UInt64(max(position, end))
            let count = min(limit - min(limit, next), Self.pieceByteCount)
            bytes = known + (try storage.readBytes(Int(count), at: start.saturating(adding: next)))
            bytesStart = position
        }
        let base = start.saturating(adding: UInt64(position))
        let bytes = bytes
        let rest = bytes.span.extracting(min(position - bytesStart, bytes.count)..<bytes.count)
        show(base, rest)
        if rest.count < SnapshotTableEntry.Layout.fixedByteCount, isCut {
            throw .invalid("snapshot table", "it is larger than 64 MiB", at: base)
        }
        let entry = try SnapshotTableEntry(decodingFields: rest, at: base)
        let extraByteCount = SnapshotTableEntry.Layout.extraDataSize.load(from: rest)
        if !isVersion2, extraByteCount == 0, entry.id.isEmpty, entry.name.isEmpty, entry.seconds == 0 {
            throw .invalid("snapshot table entry", "it is empty", at: base)
        }
        byteCount =
            position + SnapshotTableEntry.Layout.fixedByteCount + Int(extraByteCount) + entry.id.count
            + entry.name.count
        return Found(entry: entry, offset: base, extraByteCount: extraByteCount)
    }
}
