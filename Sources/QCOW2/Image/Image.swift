// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An open qcow2 image: its header, and the snapshots inside it.
///
/// ```swift
/// var image = try Image.open("disk.qcow2", for: .writing)
/// try image.createSnapshot(named: "before-upgrade")
/// for snapshot in image.snapshots { print(snapshot.id, snapshot.name) }
/// ```
///
/// Opening reads the header and the snapshot table and nothing else; it changes nothing, opens no second file, and
/// needs neither the backing file nor an encryption key. Every operation that writes is one commit: after an error,
/// a kill or a power loss, the file holds the whole old state or the whole new one.
public struct Image<S: Storage & ~Copyable>: ~Copyable {
    var storage: S
    /// What was read when opening, or is known to be in the file since the last commit.
    var opened: OpenedImage
    /// The header's sector, if it may or may not be on the disk: a commit failed while it was being written.
    ///
    /// Both states are whole until it is settled which one counts, so nothing may be reused before.
    var unsettledSector: [UInt8]?
    /// What guest writes have pending, if there were any since the last other change.
    var session: WriteSession?
    /// Whether a flush of the last commit failed, after which the disk may lack what was written before.
    var hasFailedFlush = false
    /// How guest writes go about it; set before the first one.
    public var guestWriteOptions = GuestWriteOptions()

    var header: Header { opened.header }
    /// The snapshot table's entries, in table order.
    var entries: [SnapshotTableEntry] { opened.entries }

    /// Opens the image in a storage.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported` (an unknown version or incompatible feature),
    ///   `corrupt` (a header, extension or snapshot table that contradicts the format or the file's length), or
    ///   `inputOutput`.
    public init(storage: consuming S) throws(QCOW2Error) {
        opened = try OpenedImage(reading: storage)
        self.storage = storage
    }

    /// An image of which it is known, or made out as far as possible, what is in its storage.
    init(storage: consuming S, opened: OpenedImage) {
        self.opened = opened
        self.storage = storage
    }

    /// Ends the image's life, and hands its storage back.
    ///
    /// Flushes nothing: guest writes since the last ``flush()`` may be lost.
    public consuming func close() -> S { storage }

    /// The qcow2 version: 2 or 3.
    public var version: Int { Int(header.version) }
    /// Bytes of the disk that the guest sees.
    public var virtualSize: UInt64 { header.size }
    /// Bytes of a cluster, the unit of mapping: 512 to 2 MiB.
    public var clusterSize: Int { header.geometry.clusterByteCount }
    /// Bits of a refcount: 1 to 64.
    public var refcountBits: Int { header.geometry.refcountBits }
    /// The features that a program must know to open the image.
    public var incompatibleFeatures: IncompatibleFeatures { header.incompatibleFeatures }
    /// The features that a program may ignore.
    public var compatibleFeatures: CompatibleFeatures { header.compatibleFeatures }
    /// The features that hold as long as every writer knows them.
    public var autoclearFeatures: AutoclearFeatures { header.autoclearFeatures }
    /// How the guest's data is encrypted.
    ///
    /// Snapshots need no key.
    public var encryption: EncryptionMethod { header.encryption }
    /// Whether data shows through from another file, which this library doesn't open.
    public var hasBackingFile: Bool { header.backingFileOffset.rawValue != 0 }

    /// The header's fields with their offsets and bytes, as they are in the file.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    public func annotatedHeader() throws(QCOW2Error) -> [AnnotatedField] {
        let bytes = try storage.readBytes(Int(ImageGeometry.sectorSize), at: HostOffset(0))
        return Header.annotatedFields(in: bytes.span)
    }
}

// What only reads may be done by several threads at once; all that changes is exclusive anyway.
extension Image: Sendable where S: Sendable & ~Copyable {}

extension Image where S == FileStorage {
    /// Opens an image file.
    ///
    /// - Parameters:
    ///   - path: The file's path; symbolic links are followed.
    ///   - access: What the image is opened for. Opening for reading asks the system for no permission to write.
    ///   - requirement: Whether writing is refused where there are no locks that others see.
    /// - Returns: The open image, which owns the file until it goes away.
    /// - Throws: What ``init(storage:)`` and ``FileStorage/init(path:for:locks:)`` throw.
    public static func open(
        _ path: String, for access: FileStorage.Access, locks requirement: FileStorage.LockRequirement = .forWriting
    ) throws(QCOW2Error) -> Image<FileStorage> {
        try Image(storage: FileStorage(path: path, for: access, locks: requirement))
    }
}
