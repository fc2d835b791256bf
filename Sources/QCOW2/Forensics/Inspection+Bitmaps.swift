// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Bitmaps: section 5.1.
extension Inspection {
    /// The name of a region that is a bitmap's table.
    static let bitmapTableName = "bitmap table"

    mutating func inspectBitmaps<S: Storage & ~Copyable>(
        _ header: LenientHeader, _ geometry: ImageGeometry, from storage: borrowing S
    ) throws(QCOW2Error) {
        let isTrusted = header.hasTrustedBitmaps
        let place = HostOffset(UInt64(Header.Layout.autoclearFeatures.offset))
        guard let table = tables.last(where: { $0.name == "bitmap directory" }) else {
            if isTrusted {
                report(.bitmapsInvalid, .corruption, "The bitmaps feature is set, but there are none.", at: place)
            }
            return
        }
        let limit = min(table.presentByteCount, BitmapsExtension.maximumDirectoryByteCount)
        let directory = read(limit, at: table.offset, from: storage)
        var names: [String] = []
        var count: UInt64 = 0
        var position = 0
        while position < directory.count, count < UInt64(BitmapsExtension.maximumBitmapCount) {
            try work.checkForWish()
            let offset = table.offset.saturating(adding: UInt64(position))
            let rest = directory.span.extracting(position..<directory.count)
            let decoded: (entry: BitmapDirectoryEntry, byteCount: Int)
            do throws(QCOW2Error) {
                decoded = try BitmapDirectoryEntry.decodeFields(rest, at: offset)
            } catch {
                report(.bitmapsInvalid, .corruption, error.message, at: error.offset, in: table.name, index: count)
                break
            }
            annotate("bitmap \(count)", at: offset, BitmapDirectoryEntry.annotatedFields(in: rest, at: offset))
            if names.count < 8 { names.append("'\(escaped(decoded.entry.name.prefix(64)))'") }
            if isTrusted { inspect(decoded.entry, rest, count, at: offset, geometry) }
            count += 1
            position += decoded.byteCount
        }
        let list = names.isEmpty ? "" : ": \(names.joined(separator: ", "))\(count > 8 ? " and more" : "")"
        report(
            .bitmaps, "There are \(count) bitmaps that record which parts of the disk changed\(list).",
            at: table.offset, in: table.name)
        if !isTrusted {
            report(
                .bitmapsUntrusted,
                "The bitmaps aren't marked as consistent: a program that doesn't know them wrote to the image.",
                at: place)
        }
    }

    /// Says what is wrong with an entry of the directory, and finds the bitmap's table.
    private mutating func inspect(
        _ entry: BitmapDirectoryEntry, _ bytes: Span<UInt8>, _ index: UInt64, at offset: HostOffset,
        _ geometry: ImageGeometry
    ) {
        let directory = "bitmap directory"
        do throws(QCOW2Error) {
            try entry.check(
                typed: BitmapDirectoryEntry.Layout.type.load(from: bytes), at: offset, in: geometry)
        } catch {
            report(.bitmapsInvalid, .corruption, error.message, at: error.offset, in: directory, index: index)
        }
        if entry.flags.contains(.inUse) {
            report(
                .bitmapsUntrusted,
                "The bitmap '\(escaped(entry.name.prefix(64)))' is marked as in use: it was not saved.",
                at: offset, in: directory, index: index)
        }
        let byteCount = UInt64(entry.tableEntryCount) * UInt64(BitmapTableEntry.byteCount)
        checkPlace(
            of: Self.bitmapTableName, at: entry.tableOffset, byteCount: byteCount, geometry.clusterSize, from: offset)
        guard entry.tableOffset.rawValue < fileByteCount, entry.tableOffset.rawValue > 0 else { return }
        regions.append(
            Region(
                name: Self.bitmapTableName, offset: entry.tableOffset,
                byteCount: min(byteCount, fileByteCount - entry.tableOffset.rawValue), hasSlack: true))
    }
}
