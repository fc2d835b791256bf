// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The header at the start of an image.
///
/// Section "1.1 Fields".
///
/// Holds only what the format knows by name. Unknown additional fields stay in the bytes of cluster 0, because
/// ``encode(into:)`` patches known fields in place.
struct Header: Hashable, Sendable {
    static let magic: UInt32 = 0x5146_49FB
    /// The most snapshots that other implementations read.
    static let maximumSnapshotCount: UInt32 = 65536
    static let maximumBackingFileNameByteCount: UInt32 = 1023

    var version: UInt32
    var backingFileOffset: HostOffset
    var backingFileNameByteCount: UInt32
    var clusterBits: UInt32
    /// Bytes of the virtual disk.
    var size: UInt64
    var encryption: EncryptionMethod
    var l1EntryCount: UInt32
    var l1TableOffset: HostOffset
    var refcountTableOffset: HostOffset
    var refcountTableClusterCount: UInt32
    var snapshotCount: UInt32
    /// Where the snapshot table is; means nothing without snapshots.
    var snapshotTableOffset: HostOffset
    var incompatibleFeatures: IncompatibleFeatures
    var compatibleFeatures: CompatibleFeatures
    var autoclearFeatures: AutoclearFeatures
    var refcountOrder: UInt32
    /// Bytes of the header, without extensions.
    var headerByteCount: UInt32
    /// Zero for deflate; only ``compressionType`` says whether it is a known one.
    var rawCompressionType: UInt8

    enum Layout {
        static let magic = Field<UInt32>("magic", at: 0)
        static let version = Field<UInt32>("version", at: 4)
        static let backingFileOffset = Field<UInt64>("backing_file_offset", at: 8)
        static let backingFileSize = Field<UInt32>("backing_file_size", at: 16)
        static let clusterBits = Field<UInt32>("cluster_bits", at: 20)
        static let size = Field<UInt64>("size", at: 24)
        static let cryptMethod = Field<UInt32>("crypt_method", at: 32)
        static let l1Size = Field<UInt32>("l1_size", at: 36)
        static let l1TableOffset = Field<UInt64>("l1_table_offset", at: 40)
        static let refcountTableOffset = Field<UInt64>("refcount_table_offset", at: 48)
        static let refcountTableClusters = Field<UInt32>("refcount_table_clusters", at: 56)
        static let snapshotCount = Field<UInt32>("nb_snapshots", at: 60)
        static let snapshotsOffset = Field<UInt64>("snapshots_offset", at: 64)
        static let incompatibleFeatures = Field<UInt64>("incompatible_features", at: 72)
        static let compatibleFeatures = Field<UInt64>("compatible_features", at: 80)
        static let autoclearFeatures = Field<UInt64>("autoclear_features", at: 88)
        static let refcountOrder = Field<UInt32>("refcount_order", at: 96)
        static let headerLength = Field<UInt32>("header_length", at: 100)
        static let compressionType = Field<UInt8>("compression_type", at: 104)

        static let version2ByteCount = 72
        static let version3ByteCount = 104
        /// With the compression type, and padding to a multiple of 8.
        static let newByteCount = 112

        static let version2Fields: [FieldDescription] = [
            magic.description, version.description, backingFileOffset.description, backingFileSize.description,
            clusterBits.description, size.description, cryptMethod.description, l1Size.description,
            l1TableOffset.description, refcountTableOffset.description, refcountTableClusters.description,
            snapshotCount.description, snapshotsOffset.description,
        ]
        static let version3Fields: [FieldDescription] = [
            incompatibleFeatures.description, compatibleFeatures.description, autoclearFeatures.description,
            refcountOrder.description, headerLength.description,
        ]
    }

    var isVersion2: Bool { version == 2 }

    var compressionType: CompressionType? { CompressionType(rawValue: rawCompressionType) }

    /// The sizes that follow from the header.
    var geometry: ImageGeometry {
        let hasExtendedL2 = incompatibleFeatures.contains(.extendedL2)
        return ImageGeometry(
            clusterBits: Int(clusterBits),
            refcountOrder: Int(refcountOrder),
            hasExtendedL2: hasExtendedL2,
            hasZeroFlag: !isVersion2 && !hasExtendedL2
        )
    }

    /// Writes every known field over `bytes`, which must hold at least the header's length, and leaves all others.
    func encode(into bytes: inout MutableSpan<UInt8>) {
        Layout.magic.store(Self.magic, in: &bytes)
        Layout.version.store(version, in: &bytes)
        Layout.backingFileOffset.store(backingFileOffset.rawValue, in: &bytes)
        Layout.backingFileSize.store(backingFileNameByteCount, in: &bytes)
        Layout.clusterBits.store(clusterBits, in: &bytes)
        Layout.size.store(size, in: &bytes)
        Layout.cryptMethod.store(encryption.rawValue, in: &bytes)
        Layout.l1Size.store(l1EntryCount, in: &bytes)
        Layout.l1TableOffset.store(l1TableOffset.rawValue, in: &bytes)
        Layout.refcountTableOffset.store(refcountTableOffset.rawValue, in: &bytes)
        Layout.refcountTableClusters.store(refcountTableClusterCount, in: &bytes)
        Layout.snapshotCount.store(snapshotCount, in: &bytes)
        Layout.snapshotsOffset.store(snapshotTableOffset.rawValue, in: &bytes)
        guard !isVersion2 else { return }
        Layout.incompatibleFeatures.store(incompatibleFeatures.rawValue, in: &bytes)
        Layout.compatibleFeatures.store(compatibleFeatures.rawValue, in: &bytes)
        Layout.autoclearFeatures.store(autoclearFeatures.rawValue, in: &bytes)
        Layout.refcountOrder.store(refcountOrder, in: &bytes)
        Layout.headerLength.store(headerByteCount, in: &bytes)
        if Int(headerByteCount) >= Layout.compressionType.end {
            Layout.compressionType.store(rawCompressionType, in: &bytes)
        }
    }

    /// The header's fields as they are in `bytes`, the start of an image, whether valid or not.
    static func annotatedFields(in bytes: Span<UInt8>) -> [AnnotatedField] {
        var fields = Layout.version2Fields
        if bytes.count >= Layout.version3ByteCount, Layout.version.load(from: bytes) >= 3 {
            fields += Layout.version3Fields
            if Int(Layout.headerLength.load(from: bytes)) >= Layout.compressionType.end {
                fields.append(Layout.compressionType.description)
            }
        }
        return AnnotatedField.annotate(fields, in: bytes, at: HostOffset(0))
    }
}
