// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Creates an image in an empty storage.
    ///
    /// Two flushes; a crash before the end leaves a file that isn't taken for an image, as the header's first sector
    /// is written last. Writes every table once: some clusters, or with all clusters allocated 8 bytes for each (16
    /// with extended L2 entries) and their refcounts.
    ///
    /// - Parameters:
    ///   - new: What the image is to be.
    ///   - storage: Where; after a failure it is lost, and empty if it could be emptied.
    /// - Returns: The open image.
    /// - Throws: ``QCOW2Error`` with the code `unsupported` for a choice that the format doesn't allow, `limitExceeded`
    ///   for a disk that is too large or a name that is too long, `readOnly`, or `inputOutput` (also when the storage
    ///   isn't empty, which is then left as it was).
    public static func create(_ new: NewImage, in storage: consuming S) throws(QCOW2Error) -> Image<S> {
        try Image(storage: write(NewImageLayout(new), to: storage))
    }
}

extension Image where S == FileStorage {
    /// Creates an image file, and opens it for writing.
    ///
    /// Never replaces a file: to do that, open it as a ``FileStorage``, cut it off, and use ``create(_:in:)``. The
    /// locks are those of ``open(_:for:locks:)`` for writing. A crash before the end leaves no image: no file, or one that
    /// isn't taken for an image.
    ///
    /// - Parameters:
    ///   - path: Where the file is to be.
    ///   - new: What the image is to be.
    ///   - requirement: Whether that is refused where there are no locks that others see.
    /// - Returns: The open image.
    /// - Throws: What ``create(_:in:)`` throws, ``QCOW2Error/Code/locksUnavailable``, and ``QCOW2Error/Code/inputOutput`` with a ``SystemError`` when there
    ///   is such a file or it can't be created. No file is left behind.
    public static func create(
        _ path: String, _ new: NewImage, locks requirement: FileStorage.LockRequirement = .forWriting
    ) throws(QCOW2Error) -> Image<FileStorage> {
        let layout = try NewImageLayout(new)
        let storage = try FileStorage(creating: path, locks: requirement)
        let identity = try storage.identity()
        do throws(QCOW2Error) {
            return try Image(storage: write(layout, to: storage))
        } catch {
            FileStorage.remove(path, ifStill: identity)
            throw error
        }
    }
}
