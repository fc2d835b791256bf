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

    /// How many entries were read.
    private(set) var count = 0

    /// An entry, wherever its L1 table is said to be.
    struct Found: Sendable {
        let entry: SnapshotTableEntry
        /// The entry's number in the table.
        let index: Int
        let offset: HostOffset
        let extraByteCount: UInt32

        /// Bytes of the entry, without what aligns the next one.
        var byteCount: Int {
            SnapshotTableEntry.Layout.fixedByteCount + Int(extraByteCount) + entry.id.count + entry.name.count
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
    /// - Returns: The entry, and where it is.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry whose end can't be found; no other can be read then.
    mutating func next<S: Storage & ~Copyable>(from storage: borrowing S) throws(QCOW2Error) -> Found {
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
        if rest.count < SnapshotTableEntry.Layout.fixedByteCount, isCut {
            throw .invalid("snapshot table", "it is larger than 64 MiB", at: base)
        }
        let entry = try SnapshotTableEntry(decodingFields: rest, at: base)
        let extraByteCount = SnapshotTableEntry.Layout.extraDataSize.load(from: rest)
        if !isVersion2, extraByteCount == 0, entry.id.isEmpty, entry.name.isEmpty, entry.seconds == 0 {
            throw .invalid("snapshot table entry", "it is empty", at: base)
        }
        let found = Found(entry: entry, index: count, offset: base, extraByteCount: extraByteCount)
        byteCount = position + found.byteCount
        count += 1
        return found
    }
}
