// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Bitmaps: section 5.1.
extension Inspection {
    mutating func inspectBitmaps<S: Storage & ~Copyable>(
        _ header: LenientHeader, _ geometry: ImageGeometry, from storage: borrowing S
    ) {
        let isTrusted = AutoclearFeatures(rawValue: header[Header.Layout.autoclearFeatures]).contains(.bitmaps)
        let place = HostOffset(UInt64(Header.Layout.autoclearFeatures.offset))
        guard let table = tables.last(where: { $0.name == "bitmap directory" }) else {
            if isTrusted {
                report(.bitmapsInvalid, .corruption, "The bitmaps feature is set, but there are none.", at: place)
            }
            return
        }
        let directory = read(min(table.presentByteCount, 64 << 20), at: table.offset, from: storage)
        let entries = LenientBitmap.all(in: directory, at: table.offset)
        let names = entries.prefix(8).map { "'\(escaped($0.name))'" }.joined(separator: ", ")
        report(
            .bitmaps,
            "There are \(entries.count) bitmaps that record which parts of the disk changed"
                + (entries.isEmpty ? "." : ": \(names)\(entries.count > 8 ? " and more" : "")."),
            at: table.offset, in: table.name)
        if !isTrusted {
            report(
                .bitmapsUntrusted,
                "The bitmaps aren't marked as consistent: a program that doesn't know them wrote to the image.",
                at: place)
        }
        for (index, entry) in entries.enumerated() {
            annotate("bitmap \(index)", at: entry.offset, entry.fields)
            guard isTrusted else { continue }
            addBitmap(entry, geometry)
            if entry.isInUse {
                report(
                    .bitmapsUntrusted, "The bitmap '\(escaped(entry.name))' is marked as in use: it was not saved.",
                    at: entry.offset, in: table.name, index: UInt64(index))
            }
        }
    }

    private mutating func addBitmap(_ entry: LenientBitmap, _ geometry: ImageGeometry) {
        let byteCount = UInt64(entry.tableEntryCount) * UInt64(BitmapTableEntry.byteCount)
        checkPlace(
            of: "bitmap table", at: entry.tableOffset, byteCount: byteCount, geometry.clusterSize, from: entry.offset)
        guard entry.tableOffset.rawValue < fileByteCount, entry.tableOffset.rawValue > 0 else { return }
        regions.append(
            Region(
                name: LenientBitmap.tableName, offset: entry.tableOffset,
                byteCount: min(byteCount, fileByteCount - entry.tableOffset.rawValue), hasSlack: true))
    }
}

/// An entry of the bitmap directory that has the length it claims, whatever else it says.
struct LenientBitmap {
    static let tableName = "bitmap table"

    let offset: HostOffset
    let tableOffset: HostOffset
    let tableEntryCount: UInt32
    let isInUse: Bool
    let name: [UInt8]
    let fields: [AnnotatedField]

    /// Reads entries until one doesn't fit.
    static func all(in bytes: [UInt8], at base: HostOffset) -> [LenientBitmap] {
        typealias Layout = BitmapDirectoryEntry.Layout
        var entries: [LenientBitmap] = []
        var position = 0
        while bytes.count - position >= Layout.fixedByteCount, entries.count < BitmapsExtension.maximumBitmapCount {
            let rest = bytes.span.extracting(position..<bytes.count)
            let nameByteCount = Int(Layout.nameSize.load(from: rest))
            let extraByteCount = Int(Layout.extraDataSize.load(from: rest))
            let room = rest.count - Layout.fixedByteCount
            guard nameByteCount > 0, extraByteCount <= room, nameByteCount <= room - extraByteCount else { break }
            let offset = base.saturating(adding: UInt64(position))
            let nameStart = Layout.fixedByteCount + extraByteCount
            let fields = [
                Layout.tableOffset.description, Layout.tableSize.description, Layout.flags.description,
                Layout.type.description, Layout.granularityBits.description, Layout.nameSize.description,
                Layout.extraDataSize.description,
                FieldDescription(name: "bitmap name", offset: nameStart, byteCount: nameByteCount),
            ]
            entries.append(
                LenientBitmap(
                    offset: offset, tableOffset: HostOffset(Layout.tableOffset.load(from: rest)),
                    tableEntryCount: Layout.tableSize.load(from: rest),
                    isInUse: Layout.flags.load(from: rest) & 1 != 0,
                    name: [UInt8](copying: rest, nameStart..<(nameStart + nameByteCount)),
                    fields: AnnotatedField.annotate(fields, in: rest, at: offset)))
            position += (nameStart + nameByteCount + 7) / 8 * 8
        }
        return entries
    }
}
