// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Synchronization

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// A file that appears under its name when it is complete, and not before.
///
/// It is written under another name in the same directory, which goes when this value does. After a crash that name
/// may be left: a dot, the file's name, and `.qsnap-` with a number.
///
/// A file that it replaces is locked until then, as for writing; owner, group and permissions stay as they were.
final class NewFile: Sendable {
    /// How the caller names it.
    private let name: String
    private let path: String
    private let temporaryPath: String
    private let descriptor: Int32
    private let replaced: ReplacedFile?
    private let isCommitted = Atomic(false)
    private let calls: any FileCalls

    /// Creates the file, empty and under its temporary name.
    ///
    /// A regular file that has the name already is replaced only if it is said what of locking it, and never if it is
    /// one of the sources: they are being read, or named by what is.
    ///
    /// - Throws: ``QCOW2Error/Code/fileExists``; ``QCOW2Error/Code/inUse`` or ``QCOW2Error/Code/locksUnavailable`` for
    ///   the file that would be replaced; ``QCOW2Error/Code/inputOutput``.
    init(
        path name: String, replacing locks: FileStorage.LockRequirement?, sources: [NamedFile],
        calls: any FileCalls = KernelCalls()
    ) throws(QCOW2Error) {
        try Self.check(name, locks != nil, sources)
        let replaced = try locks.map { (locks) throws(QCOW2Error) in try ReplacedFile(at: name, locks, calls) } ?? nil
        // What was checked may have been another file.
        if let replaced { try Self.check(name, replaced.identity, sources) }
        let path = replaced?.path ?? name
        let start = directoryOfFile(path).map { "\($0)/" } ?? ""
        // Nobody else may read on the way what they can't read afterwards.
        let mode: mode_t = replaced == nil ? 0o666 : 0o600
        var temporaryPath = ""
        var opened: Int32?
        var random = SystemRandomNumberGenerator()
        while opened == nil {
            let number = String(random.next() as UInt64, radix: 36)
            temporaryPath = "\(start).\(Substring(path.utf8.dropFirst(start.utf8.count))).qsnap-\(number)"
            switch retryingInterrupts({ createFile(temporaryPath, mode) }) {
            case .success(let descriptor): opened = descriptor
            case .failure(let error):
                if error.number != EEXIST { throw .system(error, "Creating", name) }
            }
        }
        descriptor = opened ?? -1
        self.name = name
        self.path = path
        self.temporaryPath = temporaryPath
        self.replaced = replaced
        self.calls = calls
        try replaced?.lendOwnership(to: descriptor)
    }

    deinit {
        _ = close(descriptor)
        if !isCommitted.load(ordering: .relaxed) { _ = unsafe unlink(temporaryPath) }
    }

    private static func check(
        _ path: String, _ replacesExisting: Bool, _ sources: [NamedFile]
    ) throws(QCOW2Error) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            // Neither a name that is free nor a file that could be replaced.
            guard errno == ENOENT, unsafe lstat(path, &status) == 0 else { return }
            throw QCOW2Error(.fileExists, "'\(path)' is a symbolic link that leads nowhere.")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw QCOW2Error(.inputOutput, "'\(path)' is there already, and no regular file.")
        }
        try check(path, FileStorage.Identity(of: status), sources)
        guard replacesExisting else {
            throw QCOW2Error(.fileExists, "'\(path)' is there already.")
        }
    }

    /// Refuses a file that belongs to what is being read.
    private static func check(
        _ path: String, _ identity: FileStorage.Identity, _ sources: [NamedFile]
    ) throws(QCOW2Error) {
        guard let source = sources.first(where: { $0.isFile(identity) }) else { return }
        throw QCOW2Error(
            .fileExists, "'\(path)' is the file '\(source.name)', which belongs to what is being read.")
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        var done = 0
        while done < bytes.count {
            guard let position = off_t(exactly: offset + UInt64(done)) else { throw .overflow("file '\(name)'") }
            // SAFETY: the range is inside the span, which outlives the call.
            let result = unsafe bytes.withUnsafeBufferPointer { pointer in
                let rest = unsafe UnsafeBufferPointer(rebasing: pointer[done...])
                return retryingInterrupts { unsafe calls.write(descriptor, UnsafeRawBufferPointer(rest), position) }
            }
            switch result {
            case .failure(let error): throw .system(error, "Writing", name)
            case .success(let count): done += count
            }
        }
    }

    /// Sets the length; what wasn't written reads as zeros.
    func setByteCount(_ byteCount: UInt64) throws(QCOW2Error) {
        guard let length = off_t(exactly: byteCount) else { throw .overflow("file '\(name)'") }
        let result = retryingInterrupts { calls.truncate(descriptor, length) }
        if case .failure(let error) = result { throw .system(error, "Changing the length of", name) }
    }

    /// Gives the file its name, after checking its length.
    ///
    /// - Parameters:
    ///   - byteCount: The length it must have.
    ///   - flushes: Whether its bytes are on stable storage before it has the name, and the name when this returns.
    /// - Throws: ``QCOW2Error/Code/inputOutput``, or ``QCOW2Error/Code/fileExists``. The name is as it was, unless the
    ///   error says that the new file has it.
    func commit(byteCount: UInt64, flushes: Bool) throws(QCOW2Error) {
        var status = stat()
        let result = retryingInterrupts { calls.status(descriptor, &status) }
        if case .failure(let error) = result { throw .system(error, "Inspecting", name) }
        guard UInt64(exactly: status.st_size) == byteCount else {
            throw QCOW2Error(
                .inputOutput,
                "'\(name)' has \(status.st_size) bytes instead of \(byteCount): something else wrote to it.")
        }
        // ORDER: after a power loss the name must not be that of a file whose bytes are lost.
        if flushes, case .failure(let error) = retryingInterrupts({ calls.flush(descriptor) }) {
            throw .system(error, "Flushing", name)
        }
        try giveName()
        isCommitted.store(true, ordering: .relaxed)
        guard flushes else { return }
        do throws(QCOW2Error) {
            try FileStorage.flushFolder(of: path, descriptor, calls)
        } catch {
            throw QCOW2Error(
                .inputOutput, "'\(name)' is complete, but may be gone after a power loss: \(error.message)",
                cause: error.cause)
        }
    }

    private func giveName() throws(QCOW2Error) {
        if let replaced {
            guard FileStorage.Identity(path: path) == replaced.identity else {
                throw QCOW2Error(.fileExists, "'\(name)' has become another file meanwhile.")
            }
        } else {
            // Unlike renaming, this never replaces a file that has appeared meanwhile.
            switch retryingInterrupts({ calls.link(temporaryPath, path) }) {
            case .success:
                _ = unsafe unlink(temporaryPath)
                return
            case .failure(let error) where error.number == EEXIST:
                throw QCOW2Error(.fileExists, "'\(name)' has appeared meanwhile.")
            // A file system without hard links.
            case .failure: try Self.check(path, false, [])
            }
        }
        let result = retryingInterrupts { calls.rename(temporaryPath, path) }
        if case .failure(let error) = result { throw .system(error, "Naming", name) }
    }
}

/// `open` for creating, under a name that the type's own members don't shadow.
private func createFile(_ path: String, _ mode: mode_t) -> Int32 {
    unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)
}
