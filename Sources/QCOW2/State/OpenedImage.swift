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
    /// The file's first sector, which all of it follows from; empty when that isn't known.
    let headerSector: [UInt8]

    init(
        header: Header, extensions: [HeaderExtension], entries: [SnapshotTableEntry], snapshotTableByteCount: UInt64,
        headerSector: [UInt8] = []
    ) {
        self.headerSector = headerSector
        self.header = header
        self.extensions = extensions
        self.entries = entries
        self.snapshotTableByteCount = snapshotTableByteCount
    }

    /// Reads the head of an image, and refuses it for the first thing that the format forbids.
    init<S: Storage & ~Copyable>(reading storage: borrowing S) throws(QCOW2Error) {
        self.init(try ImageReading(readingHead: storage, .strict))
    }

    /// What could be read of an image.
    init(_ reading: ImageReading) {
        self.init(
            header: reading.header, extensions: reading.extensions, entries: reading.snapshots.map(\.entry),
            snapshotTableByteCount: reading.snapshotTableByteCount, headerSector: reading.headerSector)
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
