// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension MetadataTables {
    /// Adds the clusters of the bitmaps, which count only while the bitmaps are trusted.
    ///
    /// Section "5.1".
    mutating func addBitmaps<S: Storage & ~Copyable>(
        of opened: OpenedImage, reading storage: borrowing S
    ) throws(QCOW2Error) {
        guard opened.header.autoclearFeatures.contains(.bitmaps), let record = opened.extensions.last(.bitmaps) else {
            return
        }
        let bitmaps = try BitmapsExtension(decoding: record, in: geometry)
        try add(
            .bitmap, "bitmap directory", at: bitmaps.directoryOffset, bitmaps.directoryByteCount, from: record.offset)
        let directory = try storage.readBytes(Int(bitmaps.directoryByteCount), at: bitmaps.directoryOffset)
        let entries = try BitmapDirectoryEntry.decodeAll(
            directory.span, count: bitmaps.bitmapCount, at: bitmaps.directoryOffset, in: geometry)
        for entry in entries {
            let byteCount = UInt64(entry.tableEntryCount) * UInt64(BitmapTableEntry.byteCount)
            try add(.bitmap, "bitmap table", at: entry.tableOffset, byteCount, from: bitmaps.directoryOffset)
        }
        // Before the tables are read, so that no two entries make us read the same bytes over and over.
        try checkDisjoint()
        for entry in entries { try addData(of: entry, reading: storage) }
    }

    private mutating func addData<S: Storage & ~Copyable>(
        of bitmap: BitmapDirectoryEntry, reading storage: borrowing S
    ) throws(QCOW2Error) {
        let byteCount = Int(bitmap.tableEntryCount) * BitmapTableEntry.byteCount
        let table = try storage.readBytes(byteCount, at: bitmap.tableOffset)
        for position in stride(from: 0, to: table.count, by: BitmapTableEntry.byteCount) {
            let entry = BitmapTableEntry(rawValue: table.span.loadBigEndian(at: position))
            let place = bitmap.tableOffset.saturating(adding: UInt64(position))
            guard !entry.hasReservedBits else { throw .reservedBits("bitmap table entry", entry.rawValue, at: place) }
            guard let data = entry.data else { continue }
            guard geometry.isAligned(data) else { throw .misaligned("bitmap table entry", data, at: place) }
            try add(.bitmap, "bitmap data", at: data, geometry.clusterSize, from: place)
        }
    }
}
