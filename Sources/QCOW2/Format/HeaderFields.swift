// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The header's fields as far as the file has them, whatever they say.
///
/// Section "1.1 Fields". The only decoder of a header: ``Header`` is made of it, once ``Rule`` found nothing that makes
/// the rest meaningless, or all the same by who wants to read on.
struct HeaderFields: Sendable {
    /// The bytes of the first cluster that the file has; of the first sector when the cluster size is unknown.
    let bytes: [UInt8]
    let hasMagic: Bool
    /// `nil` in a file that ends before it.
    let version: UInt32?
    /// `nil` without a cluster size that the format knows.
    let geometry: ImageGeometry?
    /// Where the extensions start; `nil` when the header's length can't be true.
    let byteCount: Int?

    private typealias Layout = Header.Layout

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        let number = Reader(bytes: bytes)
        hasMagic = number.has(Layout.magic) && number[Layout.magic] == UInt64(Header.magic)
        version = number.has(Layout.version) ? UInt32(truncatingIfNeeded: number[Layout.version]) : nil
        // Version 1 is another format with the same magic number: nothing behind the version means the same.
        let isKnownLayout = (version ?? 0) >= 2
        let hasVersion3Fields = (version ?? 0) >= 3
        let clusterBits = UInt32(truncatingIfNeeded: number[Layout.clusterBits])
        if isKnownLayout, number.has(Layout.clusterBits), ImageGeometry.clusterBitsRange.contains(clusterBits) {
            let order = hasVersion3Fields ? number[Layout.refcountOrder] : 4
            let features = IncompatibleFeatures(
                rawValue: hasVersion3Fields ? number[Layout.incompatibleFeatures] : 0)
            let hasExtendedL2 = features.contains(.extendedL2) && clusterBits >= 14
            geometry = ImageGeometry(
                clusterBits: Int(clusterBits), refcountOrder: order <= 6 ? Int(order) : 4,
                hasExtendedL2: hasExtendedL2, hasZeroFlag: hasVersion3Fields && !hasExtendedL2)
        } else {
            geometry = nil
        }
        if !isKnownLayout {
            byteCount = nil
        } else if hasVersion3Fields {
            let declared = number[Layout.headerLength]
            let limit = geometry?.clusterSize ?? ImageGeometry.sectorSize
            byteCount = (UInt64(Layout.version3ByteCount)...limit).contains(declared) ? Int(declared) : nil
        } else {
            byteCount = Layout.version2ByteCount
        }
    }

    /// Fields by their place; those that the file or the header's length ends before read as zero.
    struct Reader {
        let bytes: [UInt8]

        func has<T>(_ field: Field<T>) -> Bool { field.end <= bytes.count }

        subscript<T>(field: Field<T>) -> UInt64 {
            guard has(field) else { return 0 }
            return UInt64(truncatingIfNeeded: field.load(from: bytes.span))
        }
    }

    /// A field's value; zero when the file is too short or the version doesn't have it.
    subscript<T>(field: Field<T>) -> UInt64 { has(field) ? Reader(bytes: bytes)[field] : 0 }

    /// Whether the file is long enough for a field, and the version has it.
    func has<T>(_ field: Field<T>) -> Bool {
        guard let version, field.end <= bytes.count else { return false }
        if field.offset < 8 { return true }
        if field.offset < Layout.version2ByteCount { return version >= 2 }
        guard version >= 3 else { return false }
        return field.end <= Layout.version3ByteCount || field.end <= byteCount ?? Layout.version3ByteCount
    }

    /// The fields as a header, in files of version 2 and up.
    ///
    /// Of an unknown encryption method none is left, and clusters of an unknown size have 512 bytes, which is the
    /// smallest there is: what is aligned in clusters is aligned in these, too.
    var header: Header? {
        guard let version, version >= 2 else { return nil }
        let geometry =
            geometry
            ?? ImageGeometry(
                clusterBits: Int(ImageGeometry.clusterBitsRange.lowerBound), refcountOrder: 4, hasExtendedL2: false,
                hasZeroFlag: version >= 3)
        func number<T>(_ field: Field<T>) -> UInt32 { UInt32(truncatingIfNeeded: self[field]) }
        return Header(
            version: version, backingFileOffset: HostOffset(self[Layout.backingFileOffset]),
            backingFileNameByteCount: number(Layout.backingFileSize), clusterBits: UInt32(geometry.clusterBits),
            size: self[Layout.size], encryption: EncryptionMethod(rawValue: number(Layout.cryptMethod)) ?? .none,
            l1EntryCount: number(Layout.l1Size), l1TableOffset: HostOffset(self[Layout.l1TableOffset]),
            refcountTableOffset: HostOffset(self[Layout.refcountTableOffset]),
            refcountTableClusterCount: number(Layout.refcountTableClusters),
            snapshotCount: number(Layout.snapshotCount),
            snapshotTableOffset: HostOffset(self[Layout.snapshotsOffset]), incompatibleFeatures: incompatibleFeatures,
            compatibleFeatures: CompatibleFeatures(rawValue: self[Layout.compatibleFeatures]),
            autoclearFeatures: AutoclearFeatures(rawValue: self[Layout.autoclearFeatures]),
            refcountOrder: UInt32(geometry.refcountOrder),
            headerByteCount: UInt32(byteCount ?? Layout.version3ByteCount),
            rawCompressionType: UInt8(truncatingIfNeeded: self[Layout.compressionType]))
    }

    var incompatibleFeatures: IncompatibleFeatures {
        IncompatibleFeatures(rawValue: self[Layout.incompatibleFeatures])
    }

    /// Whether the bitmaps agree with the disk; otherwise nothing of them is in use.
    var hasTrustedBitmaps: Bool {
        AutoclearFeatures(rawValue: self[Layout.autoclearFeatures]).contains(.bitmaps)
    }

    /// Whether there is a header at all: one with the magic number, or whose first bytes only were overwritten.
    var mayBeHeader: Bool {
        guard let version, version >= 2 else { return false }
        if hasMagic { return true }
        guard version <= 3, let geometry, byteCount != nil else { return false }
        let (table, l1Table) = (HostOffset(self[Layout.refcountTableOffset]), HostOffset(self[Layout.l1TableOffset]))
        return self[Layout.cryptMethod] <= 2 && table.rawValue != 0 && geometry.isAligned(table)
            && geometry.isAligned(l1Table)
    }
}
