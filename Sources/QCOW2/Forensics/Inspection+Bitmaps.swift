// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Bitmaps: section 5.1.
extension Inspection {
    /// Says which bitmaps there are; whether they are right is the reading's to say.
    mutating func inspectBitmaps<S: Storage & ~Copyable>(
        _ reading: ImageReading, _ bitmaps: BitmapsExtension, from storage: borrowing S
    ) throws(QCOW2Error) {
        let table = "bitmap directory"
        let place = Header.Layout.autoclearFeatures.place
        let directory = read(bitmaps.directoryByteCount, at: bitmaps.directoryOffset, from: storage)
        var names: [String] = []
        var count: UInt64 = 0
        var position = 0
        while position < directory.count, count < UInt64(BitmapsExtension.maximumBitmapCount) {
            try work.checkForWish()
            let offset = bitmaps.directoryOffset.saturating(adding: UInt64(position))
            let rest = directory.span.extracting(position..<directory.count)
            guard let (entry, byteCount) = try? BitmapDirectoryEntry.decodeFields(rest, at: offset) else { break }
            annotate("bitmap \(count)", at: offset, BitmapDirectoryEntry.annotatedFields(in: rest, at: offset))
            let name = "'\(escaped(entry.name.prefix(64)))'"
            if names.count < 8 { names.append(name) }
            if reading.hasTrustedBitmaps {
                if entry.flags.contains(.inUse) {
                    report(
                        .bitmapsUntrusted, "The bitmap \(name) is marked as in use: it was not saved.", at: offset,
                        in: table, index: count)
                }
                addRegion(
                    "bitmap table", at: entry.tableOffset,
                    byteCount: UInt64(entry.tableEntryCount) * UInt64(BitmapTableEntry.byteCount))
            }
            count += 1
            position += byteCount
        }
        let list = names.isEmpty ? "" : ": \(names.joined(separator: ", "))\(count > 8 ? " and more" : "")"
        report(
            .bitmaps, "There are \(count) bitmaps that record which parts of the disk changed\(list).",
            at: bitmaps.directoryOffset, in: table)
        if !reading.hasTrustedBitmaps {
            report(
                .bitmapsUntrusted,
                "The bitmaps aren't marked as consistent: a program that doesn't know them wrote to the image.",
                at: place)
        }
    }
}
