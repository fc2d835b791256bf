// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An image that may be too damaged to be opened: it can be checked and repaired, and what is left of it can be read.
///
/// ```swift
/// let image = try SuspectImage.open("disk.qcow2", for: .reading)
/// let report = try image.check { finding in print(finding.message) }
/// for snapshot in image.snapshots { print(snapshot.name) }
/// ```
///
/// Opens images whose snapshot table, L1 table or refcount table ``Image`` refuses. What is left of the refusals: files
/// that aren't qcow2, unknown versions and incompatible features, and sizes without which nothing else means anything.
public struct SuspectImage<S: Storage & ~Copyable>: ~Copyable {
    var image: Image<S>

    /// Opens the image in a storage.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported`, `corrupt` or `inputOutput`.
    public init(storage: consuming S) throws(QCOW2Error) {
        let subject = try ImageReading(reading: storage, FindingSink(limitPerCode: 0) { _ in })
        image = Image(storage: storage, opened: OpenedImage(subject))
    }

    /// Bytes of a cluster, the unit of mapping: 512 to 2 MiB.
    public var clusterSize: Int { image.clusterSize }

    /// The snapshots whose entries can be read and lead to an L1 table in the file, in table order.
    public var snapshots: [Snapshot] { image.snapshots }

    /// Reads guest data of one state of the disk, as ``Image/read(_:at:of:)`` does.
    ///
    /// - Throws: What that throws: `corrupt` where what leads to the data can't be followed.
    public func read(
        _ byteCount: Int, at offset: GuestOffset, of state: DiskState = .active
    ) throws(QCOW2Error) -> [UInt8] { try image.read(byteCount, at: offset, of: state) }

    /// Ends the image's life, and hands its storage back.
    public consuming func close() -> S { image.close() }

    /// Checks the whole image, as ``Image/check(_:_:)`` does.
    public func check(
        _ options: CheckOptions = CheckOptions(), _ report: @escaping (Finding) -> Void = { _ in }
    ) throws(QCOW2Error) -> CheckReport { try image.check(options, report) }
}

extension SuspectImage where S == FileStorage {
    /// Opens an image file.
    ///
    /// - Throws: What ``init(storage:)`` and ``FileStorage/init(path:for:locks:)`` throw.
    public static func open(
        _ path: String, for access: FileStorage.Access, locks requirement: FileStorage.LockRequirement = .forWriting
    ) throws(QCOW2Error) -> SuspectImage<FileStorage> {
        try SuspectImage(storage: FileStorage(path: path, for: access, locks: requirement))
    }
}
