// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// What ``FileStorage`` does, over system calls that the tests can replace.
struct SystemFile<Calls: FileCalls>: Storage, Sendable, ~Copyable {
    let name: String
    let access: FileStorage.Access
    let locking: FileStorage.Locking
    var isWritable: Bool { access == .writing }
    private let descriptor: Int32
    private let calls: Calls
    /// The path of a new file, until its name has been flushed.
    private var unflushedPath: String?

    init(
        path: String, called name: String? = nil, for access: FileStorage.Access, isNew: Bool = false,
        followsLinks: Bool = true, locks requirement: FileStorage.LockRequirement = .forWriting, calls: Calls
    ) throws(QCOW2Error) {
        (descriptor, locking) = try Self.open(
            path, for: access, isNew: isNew, followsLinks: followsLinks, requirement, calls)
        self.name = name ?? path
        self.access = access
        self.calls = calls
        unflushedPath = isNew ? path : nil
    }

    deinit { Self.release(descriptor, calls) }

    private static func release(_ descriptor: Int32, _ calls: Calls) {
        FileLock.release(on: descriptor, calls)
        _ = calls.close(descriptor)
    }

    /// Opens, inspects and locks the file; leaves no descriptor behind when it throws.
    private static func open(
        _ path: String, for access: FileStorage.Access, isNew: Bool, followsLinks: Bool,
        _ requirement: FileStorage.LockRequirement, _ calls: Calls
    ) throws(QCOW2Error) -> (Int32, FileStorage.Locking) {
        // O_NONBLOCK: opening a pipe must not wait for its other end.
        var flags = (access == .writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK
        if isNew { flags |= O_CREAT | O_EXCL }
        let descriptor: Int32
        let result = retryingInterrupts {
            followsLinks ? calls.open(path, flags) : calls.openFollowingNoLinks(path, flags)
        }
        switch result {
        case .success(let opened): descriptor = try aboveStandardStreams(opened, path, calls)
        case .failure(let error) where !followsLinks && (error.number == ELOOP || error.number == ENOTDIR):
            throw QCOW2Error(
                .backingFileNotAllowed, "'\(path)' leads through a symbolic link by now, which was not allowed.")
        case .failure(let error): throw .system(error, isNew ? "Creating" : "Opening", path)
        }
        do throws(QCOW2Error) {
            try checkKind(of: descriptor, path, calls)
            switch access {
            case .reading: return (descriptor, try FileLock.reading.take(on: descriptor, path, requirement, calls))
            case .writing: return (descriptor, try FileLock.writing.take(on: descriptor, path, requirement, calls))
            case .readingWithoutLock: return (descriptor, .none)
            }
        } catch {
            var status = stat()
            // Whoever was faster to open a new file may need it.
            if isNew, error.code != .inUse, calls.status(descriptor, &status) == 0 {
                FileStorage.remove(path, ifStill: FileStorage.Identity(of: status))
            }
            release(descriptor, calls)
            throw error
        }
    }

    /// Moves a descriptor out of the standard streams' numbers, which are free in a process that was started without
    /// them: whatever the program prints would overwrite the image.
    private static func aboveStandardStreams(
        _ descriptor: Int32, _ path: String, _ calls: Calls
    ) throws(QCOW2Error) -> Int32 {
        guard descriptor <= STDERR_FILENO else { return descriptor }
        let result = retryingInterrupts { fcntl(descriptor, F_DUPFD_CLOEXEC, STDERR_FILENO + 1) }
        _ = calls.close(descriptor)
        switch result {
        case .success(let moved): return moved
        case .failure(let error): throw .system(error, "Opening", path)
        }
    }

    private static func checkKind(of descriptor: Int32, _ path: String, _ calls: Calls) throws(QCOW2Error) {
        var status = stat()
        let result = retryingInterrupts { calls.status(descriptor, &status) }
        if case .failure(let error) = result { throw .system(error, "Inspecting", path) }
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

    private func status() throws(QCOW2Error) -> stat {
        var status = stat()
        let result = retryingInterrupts { calls.status(descriptor, &status) }
        if case .failure(let error) = result { throw .system(error, "Inspecting", name) }
        return status
    }

    func identity() throws(QCOW2Error) -> FileStorage.Identity { FileStorage.Identity(of: try status()) }

    func byteCount() throws(QCOW2Error) -> UInt64 {
        UInt64(try status().st_size)  // Safe: a regular file's size is never negative.
    }

    func allocatedByteCount() throws(QCOW2Error) -> UInt64? {
        // POSIX leaves the unit open; on every system here it is 512 bytes.
        UInt64(exactly: try status().st_blocks).map { $0 &* 512 }
    }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        var done = 0
        while done < buffer.count {
            let position = try filePosition(offset, done)
            // SAFETY: the range is inside the buffer, which outlives the call.
            let result = unsafe buffer.withUnsafeMutableBufferPointer { pointer in
                let rest = unsafe UnsafeMutableRawBufferPointer(
                    UnsafeMutableBufferPointer(rebasing: pointer[done...]))
                return retryingInterrupts { unsafe calls.read(descriptor, rest, position) }
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

    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? {
        guard !range.isEmpty, let start = off_t(exactly: range.lowerBound) else { return nil }
        switch retryingInterrupts({ lseek(descriptor, start, SEEK_DATA) }) {
        case .failure(let error) where error.number == ENXIO: return nil
        // A file system without holes.
        case .failure: return range
        case .success(let first):
            let data = UInt64(first)
            guard data < range.upperBound else { return nil }
            guard case .success(let end) = retryingInterrupts({ lseek(descriptor, first, SEEK_HOLE) }) else {
                return data..<range.upperBound
            }
            return data..<max(data + 1, min(UInt64(end), range.upperBound))
        }
    }

    /// Lets the system start reading; a hint that may fail without harm.
    func willRead(_ byteCount: Int, at offset: HostOffset) {
        guard let start = off_t(exactly: offset.rawValue) else { return }
        calls.advise(descriptor, start, off_t(byteCount))
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        var done = 0
        while done < bytes.count {
            let position = try filePosition(offset, done)
            // SAFETY: the range is inside the span, which outlives the call.
            let result = unsafe bytes.withUnsafeBufferPointer { pointer in
                let rest = unsafe UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: pointer[done...]))
                return retryingInterrupts { unsafe calls.write(descriptor, rest, position) }
            }
            let place = offset.saturating(adding: UInt64(done))
            switch result {
            case .failure(let error): throw .system(error, "Writing", name, at: place)
            // Nothing was written, and no reason given: asking again could go on for ever.
            case .success(0): throw .system(SystemError(number: EIO), "Writing", name, at: place)
            case .success(let count): done += count
            }
        }
    }

    mutating func flush() throws(QCOW2Error) {
        // Only an interrupted call is made again. After another failure the system may have dropped what it could not
        // write, and would report success the next time.
        let result = retryingInterrupts { calls.flush(descriptor) }
        if case .failure(let error) = result { throw .system(error, "Flushing", name) }
        guard let path = unflushedPath else { return }
        try FileStorage.flushFolder(of: path, descriptor, calls)
        unflushedPath = nil
    }

    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        let position = try filePosition(HostOffset(byteCount), 0)
        let result = retryingInterrupts { calls.truncate(descriptor, position) }
        guard case .failure(let error) = result else { return }
        throw .system(error, "Changing the length of", name, at: HostOffset(byteCount))
    }

    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        let start = try filePosition(offset, 0)
        let length = try filePosition(HostOffset(byteCount), 0)
        let result = retryingInterrupts { calls.punch(descriptor, start, length) }
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
