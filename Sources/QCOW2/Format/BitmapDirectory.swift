// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The bitmaps extension's record.
///
/// Section "5.1 Bitmaps extension".
struct BitmapsExtension: Hashable, Sendable {
    static let byteCount = 24
    static let maximumBitmapCount: UInt32 = 65535
    static let maximumDirectoryByteCount: UInt64 = 1024 * 65535

    let bitmapCount: UInt32
    let directoryByteCount: UInt64
    let directoryOffset: HostOffset

    enum Layout {
        static let bitmapCount = Field<UInt32>("nb_bitmaps", at: 0)
        static let reserved = Field<UInt32>("bitmaps reserved", at: 4)
        static let directorySize = Field<UInt64>("bitmap_directory_size", at: 8)
        static let directoryOffset = Field<UInt64>("bitmap_directory_offset", at: 16)
    }

    init(decoding record: HeaderExtension, in geometry: ImageGeometry) throws(QCOW2Error) {
        guard record.data.count == Self.byteCount else {
            throw .invalid(
                "bitmaps extension", "it has \(record.data.count) bytes instead of \(Self.byteCount)",
                at: record.offset)
        }
        let bytes = record.data.span
        func place<T>(_ field: Field<T>) -> HostOffset { record.offset.saturating(adding: 8 + UInt64(field.offset)) }
        bitmapCount = Layout.bitmapCount.load(from: bytes)
        directoryByteCount = Layout.directorySize.load(from: bytes)
        directoryOffset = HostOffset(Layout.directoryOffset.load(from: bytes))
        guard (1...Self.maximumBitmapCount).contains(bitmapCount) else {
            throw .outOfRange(
                Layout.bitmapCount.name, bitmapCount, 1...Self.maximumBitmapCount, at: place(Layout.bitmapCount))
        }
        guard Layout.reserved.load(from: bytes) == 0 else {
            throw .reservedBits(
                Layout.reserved.name, UInt64(Layout.reserved.load(from: bytes)), at: place(Layout.reserved))
        }
        guard (1...Self.maximumDirectoryByteCount).contains(directoryByteCount) else {
            throw .outOfRange(
                Layout.directorySize.name, directoryByteCount, 1...Self.maximumDirectoryByteCount,
                at: place(Layout.directorySize))
        }
        guard geometry.isAligned(directoryOffset), directoryOffset.rawValue != 0 else {
            throw .misaligned(Layout.directoryOffset.name, directoryOffset, at: place(Layout.directoryOffset))
        }
    }
}

/// One bitmap of the directory.
///
/// Section "5.1 Bitmaps extension".
struct BitmapDirectoryEntry: Hashable, Sendable {
    let tableOffset: HostOffset
    let tableEntryCount: UInt32
    let flags: Flags
    /// The base-2 logarithms of a granularity that other implementations open: 512 bytes to 2 GiB.
    static let granularityBitsRange: ClosedRange<UInt8> = 9...31
    /// log2 of the bytes that one bit stands for.
    let granularityBits: UInt8
    let name: [UInt8]

    struct Flags: OptionSet, Hashable, Sendable {
        let rawValue: UInt32
        init(rawValue: UInt32) { self.rawValue = rawValue }

        static let inUse = Self(rawValue: 1 << 0)
        static let automatic = Self(rawValue: 1 << 1)
    }

    enum Layout {
        static let tableOffset = Field<UInt64>("bitmap_table_offset", at: 0)
        static let tableSize = Field<UInt32>("bitmap_table_size", at: 8)
        static let flags = Field<UInt32>("bitmap flags", at: 12)
        static let type = Field<UInt8>("bitmap type", at: 16)
        static let granularityBits = Field<UInt8>("granularity_bits", at: 17)
        static let nameSize = Field<UInt16>("bitmap name_size", at: 18)
        static let extraDataSize = Field<UInt32>("bitmap extra_data_size", at: 20)
        static let fixedByteCount = 24

        static let fields: [FieldDescription] = [
            tableOffset.description, tableSize.description, flags.description, type.description,
            granularityBits.description, nameSize.description, extraDataSize.description,
        ]
    }

    /// Decodes every entry of a directory, whose count and length must match exactly.
    ///
    /// Stops at the first entry too many: what is collected is bounded by the announced count.
    static func decodeAll(
        _ bytes: Span<UInt8>, count: UInt32, at base: HostOffset, in geometry: ImageGeometry
    ) throws(QCOW2Error) -> [BitmapDirectoryEntry] {
        var entries: [BitmapDirectoryEntry] = []
        var names: Set<[UInt8]> = []
        var position = 0
        while position < bytes.count {
            guard entries.count < Int(count) else {
                throw .invalid(
                    BitmapsExtension.Layout.bitmapCount.name, "\(count) doesn't match the directory, which has more",
                    at: base)
            }
            let offset = base.saturating(adding: UInt64(position))
            let rest = bytes.extracting(position..<bytes.count)
            let (entry, byteCount) = try decode(rest, at: offset, in: geometry)
            guard names.insert(entry.name).inserted else {
                throw .invalid("bitmap name", "two bitmaps have the same one", at: offset)
            }
            entries.append(entry)
            position += byteCount
        }
        guard entries.count == Int(count), position == bytes.count else {
            throw .invalid(
                BitmapsExtension.Layout.bitmapCount.name,
                "\(count) doesn't match the \(entries.count) in the directory",
                at: base)
        }
        return entries
    }

    private static func decode(
        _ bytes: Span<UInt8>, at base: HostOffset, in geometry: ImageGeometry
    ) throws(QCOW2Error) -> (BitmapDirectoryEntry, byteCount: Int) {
        let (entry, byteCount) = try decodeFields(bytes, at: base)
        try entry.check(typed: Layout.type.load(from: bytes), at: base, in: geometry)
        return (entry, byteCount)
    }

    /// Decodes the entry at the start of `bytes`, and refuses only one whose end can't be found.
    static func decodeFields(
        _ bytes: Span<UInt8>, at base: HostOffset
    ) throws(QCOW2Error) -> (BitmapDirectoryEntry, byteCount: Int) {
        func place<T>(_ field: Field<T>) -> HostOffset { base.saturating(adding: UInt64(field.offset)) }
        guard bytes.count >= Layout.fixedByteCount else {
            throw .truncated("bitmap directory entry", needed: Layout.fixedByteCount, have: bytes.count, at: base)
        }
        let extraByteCount = Layout.extraDataSize.load(from: bytes)
        guard extraByteCount <= bytes.count - Layout.fixedByteCount else {
            throw .truncated("bitmap directory entry", needed: Int(extraByteCount), have: bytes.count, at: base)
        }
        let nameByteCount = Layout.nameSize.load(from: bytes)
        guard (1...1023).contains(nameByteCount) else {
            throw .outOfRange(Layout.nameSize.name, nameByteCount, 1...1023, at: place(Layout.nameSize))
        }
        let nameStart = Layout.fixedByteCount + Int(extraByteCount)
        let end = nameStart + Int(nameByteCount)
        let byteCount = (end + 7) / 8 * 8
        guard bytes.count >= byteCount else {
            throw .truncated("bitmap directory entry", needed: byteCount, have: bytes.count, at: base)
        }
        return (
            BitmapDirectoryEntry(
                tableOffset: HostOffset(Layout.tableOffset.load(from: bytes)),
                tableEntryCount: Layout.tableSize.load(from: bytes),
                flags: Flags(rawValue: Layout.flags.load(from: bytes)),
                granularityBits: Layout.granularityBits.load(from: bytes),
                name: [UInt8](copying: bytes, nameStart..<end)),
            byteCount
        )
    }

    /// Checks what the fields of the entry at `base` say, whatever the file's length.
    func check(typed type: UInt8, at base: HostOffset, in geometry: ImageGeometry) throws(QCOW2Error) {
        func place<T>(_ field: Field<T>) -> HostOffset { base.saturating(adding: UInt64(field.offset)) }
        guard flags.rawValue & ~7 == 0 else {
            throw .reservedBits(Layout.flags.name, UInt64(flags.rawValue), at: place(Layout.flags))
        }
        guard type == 1 else { throw .outOfRange(Layout.type.name, type, 1...1, at: place(Layout.type)) }
        guard Self.granularityBitsRange.contains(granularityBits) else {
            throw .outOfRange(
                Layout.granularityBits.name, granularityBits, Self.granularityBitsRange,
                at: place(Layout.granularityBits))
        }
        guard geometry.isAligned(tableOffset), tableOffset.rawValue != 0 else {
            throw .misaligned(Layout.tableOffset.name, tableOffset, at: place(Layout.tableOffset))
        }
        // 2^27 entries, and bitmaps of at most 512 MiB.
        let limit = min(UInt64(1) << 27, (512 << 20) >> UInt64(geometry.clusterBits))
        guard (1...limit).contains(UInt64(tableEntryCount)) else {
            throw .outOfRange(Layout.tableSize.name, UInt64(tableEntryCount), 1...limit, at: place(Layout.tableSize))
        }
    }

    /// The fields of the entry at the start of `bytes`, which was decoded.
    static func annotatedFields(in bytes: Span<UInt8>, at base: HostOffset) -> [AnnotatedField] {
        let nameStart = Layout.fixedByteCount + Int(Layout.extraDataSize.load(from: bytes))
        let name = FieldDescription(
            name: "bitmap name", offset: nameStart, byteCount: Int(Layout.nameSize.load(from: bytes)))
        return AnnotatedField.annotate(Layout.fields + [name], in: bytes, at: base)
    }
}

/// One entry of a bitmap table, exactly as it is on disk.
struct BitmapTableEntry: RawRepresentable, Hashable, Sendable {
    static let byteCount = 8
    let rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The cluster with the bitmap's bits; `nil` when they are all the same.
    var data: HostOffset? {
        let offset = rawValue & 0x00FF_FFFF_FFFF_FE00
        return offset == 0 ? nil : HostOffset(offset)
    }

    var hasReservedBits: Bool { rawValue & 0xFF00_0000_0000_01FE != 0 || (data != nil && rawValue & 1 != 0) }
}
