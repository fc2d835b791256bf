// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// An image file of the operating system.
///
/// Owns its descriptor, and with it the locks on the file: both go when the value does. Symbolic links are followed;
/// directories, pipes and devices are refused.
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

    public let name: String
    /// What the file was opened for.
    public let access: Access
    public var isWritable: Bool { access == .writing }
    private let descriptor: Int32

    /// Opens a file, and takes the locks that QEMU's programs respect, for reading or for writing.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with a ``SystemError`` when the file can't be opened or isn't a
    ///   regular file; ``QCOW2Error/Code/inUse`` when another process has it open in a way that excludes `access`.
    public init(path: String, for access: Access) throws(QCOW2Error) {
        descriptor = try Self.open(path, for: access)
        name = path
        self.access = access
    }

    /// Creates an empty file, and opens it for writing, with the locks of ``init(path:for:)``.
    ///
    /// Never opens a file that exists, nor one that a symbolic link names.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with a ``SystemError`` when there is something under that name, or the
    ///   file can't be created; ``QCOW2Error/Code/inUse`` when another process was faster to open it.
    public init(creating path: String) throws(QCOW2Error) {
        descriptor = try Self.open(path, for: .writing, isNew: true)
        name = path
        access = .writing
    }

    deinit { Self.release(descriptor) }

    private static func release(_ descriptor: Int32) {
        FileLock.release(on: descriptor)
        _ = close(descriptor)
    }

    /// Opens, inspects and locks the file; leaves no descriptor behind when it throws.
    private static func open(_ path: String, for access: Access, isNew: Bool = false) throws(QCOW2Error) -> Int32 {
        // O_NONBLOCK: opening a pipe must not wait for its other end.
        var flags = (access == .writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK
        if isNew { flags |= O_CREAT | O_EXCL }
        let descriptor: Int32
        switch retryingInterrupts({ openFile(path, flags) }) {
        case .success(let opened): descriptor = try aboveStandardStreams(opened, path)
        case .failure(let error): throw .system(error, isNew ? "Creating" : "Opening", path)
        }
        do throws(QCOW2Error) {
            try checkKind(of: descriptor, path)
            switch access {
            case .reading: try FileLock.reading.take(on: descriptor, path)
            case .writing: try FileLock.writing.take(on: descriptor, path)
            case .readingWithoutLock: break
            }
        } catch {
            release(descriptor)
            throw error
        }
        return descriptor
    }

    /// Moves a descriptor out of the standard streams' numbers, which are free in a process that was started without
    /// them: whatever the program prints would overwrite the image.
    private static func aboveStandardStreams(_ descriptor: Int32, _ path: String) throws(QCOW2Error) -> Int32 {
        guard descriptor <= STDERR_FILENO else { return descriptor }
        let result = retryingInterrupts { fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) }
        _ = close(descriptor)
        switch result {
        case .success(let moved): return moved
        case .failure(let error): throw .system(error, "Opening", path)
        }
    }

    private static func checkKind(of descriptor: Int32, _ path: String) throws(QCOW2Error) {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .system(.last, "Inspecting", path) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let kind =
                switch status.st_mode & S_IFMT {
                case S_IFDIR: "a directory"
                case S_IFBLK, S_IFCHR: "a device"
                default: "a pipe or socket"
                }
            throw QCOW2Error(.inputOutput, "'\(path)' is \(kind), not an image file.")
        }
    }

    /// What stays the same under all names of the file.
    struct Identity: Hashable, Sendable {
        let device: UInt64
        let inode: UInt64

        fileprivate init(of status: stat) {
            device = UInt64(truncatingIfNeeded: status.st_dev)
            inode = UInt64(status.st_ino)
        }
    }

    func identity() throws(QCOW2Error) -> Identity {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .system(.last, "Inspecting", name) }
        return Identity(of: status)
    }

    public func byteCount() throws(QCOW2Error) -> UInt64 {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .system(.last, "Inspecting", name) }
        return UInt64(status.st_size)  // Safe: a regular file's size is never negative.
    }

    public func allocatedByteCount() throws(QCOW2Error) -> UInt64? {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .system(.last, "Inspecting", name) }
        // POSIX leaves the unit open; on every system here it is 512 bytes.
        return UInt64(exactly: status.st_blocks).map { $0 &* 512 }
    }

    public func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        var done = 0
        while done < buffer.count {
            let position = try filePosition(offset, done)
            // SAFETY: the range is inside the buffer, which outlives the call.
            let result = unsafe buffer.withUnsafeMutableBufferPointer { pointer in
                let rest = unsafe UnsafeMutableBufferPointer(rebasing: pointer[done...])
                return retryingInterrupts { unsafe pread(descriptor, rest.baseAddress, rest.count, position) }
            }
            switch result {
            case .failure(let error): throw .system(error, "Reading", name, at: offset.saturating(adding: UInt64(done)))
            case .success(0):
                for index in done..<buffer.count { buffer[index] = 0 }
                return
            case .success(let count): done += count
            }
        }
    }

    public mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        var done = 0
        while done < bytes.count {
            let position = try filePosition(offset, done)
            // SAFETY: the range is inside the span, which outlives the call.
            let result = unsafe bytes.withUnsafeBufferPointer { pointer in
                let rest = unsafe UnsafeBufferPointer(rebasing: pointer[done...])
                return retryingInterrupts { unsafe pwrite(descriptor, rest.baseAddress, rest.count, position) }
            }
            switch result {
            case .failure(let error): throw .system(error, "Writing", name, at: offset.saturating(adding: UInt64(done)))
            case .success(let count): done += count
            }
        }
        #if os(Linux)
            // Starts writing what is large, so that the flush that follows has less to wait for; promises nothing.
            if bytes.count >= 1 << 18, let start = off_t(exactly: offset.rawValue) {
                _ = sync_file_range(descriptor, start, off_t(bytes.count), UInt32(SYNC_FILE_RANGE_WRITE))
            }
        #endif
    }

    public mutating func flush() throws(QCOW2Error) {
        #if canImport(Darwin)
            // On Darwin fsync is no barrier: it doesn't empty the drive's own cache.
            let result = retryingInterrupts { fcntl(descriptor, F_FULLFSYNC, 0) }
        #else
            let result = retryingInterrupts { fdatasync(descriptor) }
        #endif
        guard case .failure(let error) = result else { return }
        throw .system(error, "Flushing", name)
    }

    public mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        let position = try filePosition(HostOffset(byteCount), 0)
        let result = retryingInterrupts { ftruncate(descriptor, position) }
        guard case .failure(let error) = result else { return }
        throw .system(error, "Changing the length of", name, at: HostOffset(byteCount))
    }

    public mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        let start = try filePosition(offset, 0)
        let length = try filePosition(HostOffset(byteCount), 0)
        #if canImport(Darwin)
            var hole = fpunchhole_t(fp_flags: 0, reserved: 0, fp_offset: start, fp_length: length)
            let result = retryingInterrupts { unsafe fcntl(descriptor, F_PUNCHHOLE, &hole) }
        #else
            let result = retryingInterrupts {
                fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length)
            }
        #endif
        guard case .failure(let error) = result else { return }
        // A file system without holes keeps the bytes, which nothing refers to.
        if [EOPNOTSUPP, ENOTSUP, ENOSYS, EINVAL].contains(error.number) { return }
        throw .system(error, "Punching a hole into", name, at: offset)
    }

    private func filePosition(_ offset: HostOffset, _ distance: Int) throws(QCOW2Error) -> off_t {
        guard let position = off_t(exactly: offset.saturating(adding: UInt64(distance)).rawValue) else {
            throw .overflow("offset \(offset)", at: offset)
        }
        return position
    }
}

/// `open` under a name that the type's own members don't shadow; a new file's permissions are left to the umask.
private func openFile(_ path: String, _ flags: Int32) -> Int32 { unsafe open(path, flags, 0o644) }

extension FileStorage {
    /// Removes a file, unless its name means another one by now.
    ///
    /// What can't be removed stays.
    static func remove(_ path: String, ifStill identity: Identity?) {
        var status = stat()
        guard let identity, unsafe lstat(path, &status) == 0, Identity(of: status) == identity else { return }
        _ = unsafe unlink(path)
    }

    /// Returns once the name of a new file is on stable storage, where the system can say so.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``, but not when the folder can't be opened or flushed as a file can.
    static func flushFolder(of path: String) throws(QCOW2Error) {
        let parts = path.utf8.lastIndex(of: UInt8(ascii: "/"))
        let folder = parts.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let descriptor = openFile(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { _ = close(descriptor) }
        let result = retryingInterrupts { fsync(descriptor) }
        guard case .failure(let error) = result, ![EINVAL, ENOTSUP, EBADF].contains(error.number) else { return }
        throw .system(error, "Flushing", folder)
    }
}
