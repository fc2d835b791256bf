// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An image that may be too damaged to be opened: it can be checked and repaired, and nothing else.
///
/// ```swift
/// let image = try SuspectImage.open("disk.qcow2", for: .reading)
/// let report = try image.check { finding in print(finding.message) }
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
