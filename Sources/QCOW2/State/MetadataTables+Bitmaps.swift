// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension MetadataTables {
    /// The most bytes of a bitmap table that are read at once.
    private static let pieceByteCount: UInt64 = 1 << 20

    /// Adds the clusters of the bitmaps, which count only while the bitmaps are trusted.
    ///
    /// Section "5.1". Holes of the file aren't read. Takes eight bytes for each cluster of bitmap data.
    mutating func addBitmaps<S: Storage & ~Copyable>(
        of header: Header, _ extensions: [HeaderExtension], reading storage: borrowing S
    ) throws(QCOW2Error) {
        guard header.autoclearFeatures.contains(.bitmaps), let record = extensions.last(.bitmaps) else { return }
        let bitmaps = try BitmapsExtension(decoding: record, in: geometry)
        try add(.bitmapDirectory, at: bitmaps.directoryOffset, bitmaps.directoryByteCount, from: record.offset)
        let directory = try storage.readBytes(Int(bitmaps.directoryByteCount), at: bitmaps.directoryOffset)
        let entries = try BitmapDirectoryEntry.decodeAll(
            directory.span, count: bitmaps.bitmapCount, at: bitmaps.directoryOffset, in: geometry)
        for entry in entries {
            let byteCount = UInt64(entry.tableEntryCount) * UInt64(BitmapTableEntry.byteCount)
            try add(.bitmapTable, at: entry.tableOffset, byteCount, from: bitmaps.directoryOffset)
        }
        // Before the tables are read, so that no two entries make us read the same bytes over and over.
        try checkDisjoint()
        defer { sortBitmapData() }
        for entry in entries { try addData(of: entry, reading: storage) }
    }

    private mutating func addData<S: Storage & ~Copyable>(
        of bitmap: BitmapDirectoryEntry, reading storage: borrowing S
    ) throws(QCOW2Error) {
        var position = bitmap.tableOffset.rawValue
        // Can't overflow: the table lies in the file.
        let end = position + UInt64(bitmap.tableEntryCount) * UInt64(BitmapTableEntry.byteCount)
        while position < end, let data = try storage.dataRange(in: position..<end) {
            position = max(position, data.lowerBound / 8 * 8)
            let stop = min(end, (data.upperBound + 7) / 8 * 8, position + Self.pieceByteCount)
            let bytes = try storage.readBytes(Int(stop - position), at: HostOffset(position))
            for index in stride(from: 0, to: bytes.count, by: BitmapTableEntry.byteCount) {
                let entry = BitmapTableEntry(rawValue: bytes.span.loadBigEndian(at: index))
                let place = HostOffset(position + UInt64(index))
                guard !entry.hasReservedBits else {
                    throw .reservedBits("bitmap table entry", entry.rawValue, at: place)
                }
                guard let data = entry.data else { continue }
                guard geometry.isAligned(data) else { throw .misaligned("bitmap table entry", data, at: place) }
                try addBitmapData(at: data, from: place)
            }
            position = stop
        }
    }
}
