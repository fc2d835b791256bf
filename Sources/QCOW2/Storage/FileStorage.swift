// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An image file of the operating system.
///
/// Owns its descriptor, and with it the locks on the file: both go when the value does, and no program that this
/// process starts gets them. Symbolic links are followed; directories, pipes and devices are refused by name. A block
/// device has neither a length that can change nor an end behind which an operation could write and take it back.
public struct FileStorage: Storage, Sendable, ~Copyable {
    /// What an open file will be used for.
    public enum Access: Hashable, Sendable {
        /// Reading while no other process writes.
        case reading
        /// Reading whatever other processes do: what is read may be torn.
        case readingWithoutLock
        /// Reading and writing, alone.
        case writing
    }

    /// How other programs are kept from using a file in a way that excludes ours.
    public enum Locking: Hashable, Sendable {
        /// Not at all, as was wanted.
        case none
        /// With QEMU's locks on single bytes.
        case byteRanges
        /// With a lock on the whole file that this library takes where there are no locks on bytes, as always on
        /// Darwin: QEMU's programs don't see it.
        case advisory
        /// Not at all: the system or the file system has no locks.
        case unavailable
    }

    /// What becomes of opening a file where there are no locks.
    ///
    /// Where there are locks, they are taken and respected whatever the choice.
    public enum LockRequirement: Hashable, Sendable {
        /// Opening for writing is refused with ``QCOW2Error/Code/locksUnavailable``; reading goes on, and
        /// ``FileStorage/locking`` says how.
        ///
        /// On Linux only QEMU's locks on bytes are enough for writing. Darwin has none; a lock on the whole file is.
        case forWriting
        /// Goes on without: the caller knows that nobody else uses the file.
        case ifAvailable
    }

    private var file: SystemFile<KernelCalls>

    public var name: String { file.name }
    /// What the file was opened for.
    public var access: Access { file.access }
    public var isWritable: Bool { file.isWritable }
    /// How other programs are kept out.
    public var locking: Locking { file.locking }

    /// Opens a file, and takes the locks that QEMU's programs respect, for reading or for writing.
    ///
    /// Where the system or the file system has no such locks it takes one that this library respects; ``locking`` says
    /// which it is.
    ///
    /// - Parameters:
    ///   - path: The file's path; symbolic links are followed.
    ///   - access: What the file is opened for.
    ///   - requirement: Whether writing is refused where there are no locks that others see.
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with a ``SystemError`` when the file can't be opened or locked, or
    ///   isn't a regular file; ``QCOW2Error/Code/inUse`` when another process has it open in a way that excludes
    ///   `access`; ``QCOW2Error/Code/locksUnavailable``.
    public init(
        path: String, for access: Access, locks requirement: LockRequirement = .forWriting
    ) throws(QCOW2Error) {
        file = try SystemFile(path: path, for: access, locks: requirement, calls: KernelCalls())
    }

    /// Opens the file that is at an absolute path itself, and none that a symbolic link there or on the way leads to;
    /// with another name for it.
    ///
    /// - Throws: ``QCOW2Error/Code/backingFileNotAllowed`` when there is such a link.
    init(followingNoLinksTo path: String, called name: String, for access: Access) throws(QCOW2Error) {
        file = try SystemFile(path: path, called: name, for: access, followsLinks: false, calls: KernelCalls())
    }

    /// Creates an empty file, and opens it for writing, with the locks of ``init(path:for:locks:)``.
    ///
    /// Never opens a file that exists, nor one that a symbolic link names. A file that can't be locked is removed again.
    /// The first ``flush()`` puts its name on stable storage, too.
    ///
    /// - Parameters:
    ///   - path: Where the file is to be.
    ///   - requirement: Whether that is refused where there are no locks that others see.
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with a ``SystemError`` when there is something under that name, or the
    ///   file can't be created; ``QCOW2Error/Code/inUse`` when another process was faster to open it;
    ///   ``QCOW2Error/Code/locksUnavailable``.
    public init(creating path: String, locks requirement: LockRequirement = .forWriting) throws(QCOW2Error) {
        file = try SystemFile(path: path, for: .writing, isNew: true, locks: requirement, calls: KernelCalls())
    }

    func identity() throws(QCOW2Error) -> Identity { try file.identity() }

    public func byteCount() throws(QCOW2Error) -> UInt64 { try file.byteCount() }

    public func allocatedByteCount() throws(QCOW2Error) -> UInt64? { try file.allocatedByteCount() }

    public func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try file.read(into: &buffer, at: offset)
    }

    public func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? {
        try file.dataRange(in: range)
    }

    public func willRead(_ byteCount: Int, at offset: HostOffset) { file.willRead(byteCount, at: offset) }

    public mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try file.write(bytes, at: offset)
    }

    public mutating func flush() throws(QCOW2Error) { try file.flush() }

    public mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        try file.truncate(toByteCount: byteCount)
    }

    public mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        try file.punchHole(at: offset, byteCount: byteCount)
    }
}
