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
final class NewFile: Sendable {
    private let path: String
    private let temporaryPath: String
    private let descriptor: Int32
    private let replacesExisting: Bool
    private let isCommitted = Atomic(false)

    /// Creates the file, empty and under its temporary name.
    ///
    /// A regular file that has the name already is replaced only if that is wanted, and never if it is one of the
    /// sources, which are being read.
    ///
    /// - Throws: ``QCOW2Error/Code/fileExists``, or ``QCOW2Error/Code/inputOutput``.
    init(path: String, replacesExisting: Bool, sources: [String]) throws(QCOW2Error) {
        try Self.check(path, replacesExisting, sources)
        let start = directoryOfFile(path).map { "\($0)/" } ?? ""
        let name = path.dropFirst(start.count)
        var temporaryPath = ""
        var opened: Int32?
        var random = SystemRandomNumberGenerator()
        while opened == nil {
            temporaryPath = "\(start).\(name).qsnap-\(String(random.next() as UInt64, radix: 36))"
            switch retryingInterrupts({ createFile(temporaryPath) }) {
            case .success(let descriptor): opened = descriptor
            case .failure(let error):
                if error.number != EEXIST { throw .system(error, "Creating", path) }
            }
        }
        descriptor = opened ?? -1
        self.path = path
        self.temporaryPath = temporaryPath
        self.replacesExisting = replacesExisting
    }

    deinit {
        _ = close(descriptor)
        if !isCommitted.load(ordering: .relaxed) { _ = unsafe unlink(temporaryPath) }
    }

    private static func check(_ path: String, _ replacesExisting: Bool, _ sources: [String]) throws(QCOW2Error) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw QCOW2Error(.inputOutput, "'\(path)' is there already, and no regular file.")
        }
        if let identity = FileStorage.Identity(path: path),
            let source = sources.first(where: { FileStorage.Identity(path: $0) == identity })
        {
            throw QCOW2Error(.fileExists, "'\(path)' is '\(source)' itself, which is being read.")
        }
        guard replacesExisting else {
            throw QCOW2Error(.fileExists, "'\(path)' is there already.")
        }
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        var done = 0
        while done < bytes.count {
            guard let position = off_t(exactly: offset + UInt64(done)) else { throw .overflow("file '\(path)'") }
            // SAFETY: the range is inside the span, which outlives the call.
            let result = unsafe bytes.withUnsafeBufferPointer { pointer in
                let rest = unsafe UnsafeBufferPointer(rebasing: pointer[done...])
                return retryingInterrupts { unsafe pwrite(descriptor, rest.baseAddress, rest.count, position) }
            }
            switch result {
            case .failure(let error): throw .system(error, "Writing", path)
            case .success(let count): done += count
            }
        }
    }

    /// Sets the length; what wasn't written reads as zeros.
    func setByteCount(_ byteCount: UInt64) throws(QCOW2Error) {
        guard let length = off_t(exactly: byteCount) else { throw .overflow("file '\(path)'") }
        let result = retryingInterrupts { ftruncate(descriptor, length) }
        if case .failure(let error) = result { throw .system(error, "Changing the length of", path) }
    }

    /// Gives the file its name, after checking its length.
    ///
    /// Flushing waits until all of it is on stable storage.
    func commit(byteCount: UInt64, flushes: Bool) throws(QCOW2Error) {
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw .system(.last, "Inspecting", path) }
        guard UInt64(exactly: status.st_size) == byteCount else {
            throw QCOW2Error(
                .inputOutput,
                "'\(path)' has \(status.st_size) bytes instead of \(byteCount): something else wrote to it.")
        }
        if flushes, case .failure(let error) = retryingInterrupts({ fsync(descriptor) }) {
            throw .system(error, "Flushing", path)
        }
        try rename()
        isCommitted.store(true, ordering: .relaxed)
        guard flushes else { return }
        // The name is on stable storage when the directory is.
        let directory = unsafe open(directoryOfFile(path).map { "\($0)/" } ?? ".", O_RDONLY | O_CLOEXEC)
        if directory >= 0 {
            _ = fsync(directory)
            _ = close(directory)
        }
    }

    private func rename() throws(QCOW2Error) {
        if !replacesExisting {
            // Unlike renaming, this never replaces a file that has appeared meanwhile.
            switch retryingInterrupts({ unsafe link(temporaryPath, path) }) {
            case .success:
                _ = unsafe unlink(temporaryPath)
                return
            case .failure(let error) where error.number == EEXIST:
                throw QCOW2Error(.fileExists, "'\(path)' has appeared meanwhile.")
            // A file system without hard links.
            case .failure: try Self.check(path, false, [])
            }
        }
        let result = retryingInterrupts { renameFile(temporaryPath, path) }
        if case .failure(let error) = result { throw .system(error, "Naming", path) }
    }
}

/// `open` for creating, and `rename`, under names that the type's own members don't shadow.
private func createFile(_ path: String) -> Int32 {
    unsafe open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(0o666))
}

private func renameFile(_ old: String, _ new: String) -> Int32 { unsafe rename(old, new) }
