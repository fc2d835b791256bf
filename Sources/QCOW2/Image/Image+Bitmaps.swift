// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A bitmap of changed guest data inside an image, as its entry in the bitmap directory describes it.
///
/// Section "5.1 Bitmaps extension".
public struct Bitmap: Hashable, Sendable {
    /// The name's bytes, 1 to 1023.
    public let nameBytes: [UInt8]
    /// Bytes of the disk that one bit stands for.
    public let granularity: UInt64
    /// Whether a writer had it open and didn't close it, so that it can't be trusted.
    public let isInUse: Bool
    /// Whether writers of the image keep it up to date.
    public let isAutomatic: Bool

    /// The name as text; bytes that aren't UTF-8 are replaced.
    public var name: String { String(decoding: nameBytes, as: UTF8.self) }
}

extension Image where S: ~Copyable {
    /// The bitmaps that are consistent with the disk as far as the image says; none when it was written by a program
    /// that doesn't know bitmaps.
    ///
    /// Reads the bitmap directory, at most 64 MiB.
    ///
    /// - Throws: ``QCOW2Error`` with the code `corrupt` or `inputOutput`.
    public func bitmaps() throws(QCOW2Error) -> [Bitmap] {
        guard header.autoclearFeatures.contains(.bitmaps), let record = opened.extensions.last(.bitmaps) else {
            return []
        }
        let geometry = header.geometry
        let bitmaps = try BitmapsExtension(decoding: record, in: geometry)
        let (end, overflow) = bitmaps.directoryOffset.rawValue.addingReportingOverflow(bitmaps.directoryByteCount)
        guard !overflow, end <= (try storage.byteCount()) else {
            throw .beyondEnd(
                BitmapsExtension.Layout.directoryOffset.name, bitmaps.directoryOffset, at: record.offset)
        }
        // Safe: at most 64 MiB, and not more than the file has.
        let bytes = try storage.readBytes(Int(bitmaps.directoryByteCount), at: bitmaps.directoryOffset)
        let entries = try BitmapDirectoryEntry.decodeAll(
            bytes.span, count: bitmaps.bitmapCount, at: bitmaps.directoryOffset, in: geometry)
        return entries.map { entry in
            Bitmap(
                nameBytes: entry.name, granularity: 1 << UInt64(entry.granularityBits),
                isInUse: entry.flags.contains(.inUse), isAutomatic: entry.flags.contains(.automatic))
        }
    }
}
