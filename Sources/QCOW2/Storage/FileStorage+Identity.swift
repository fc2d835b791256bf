// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

extension FileStorage {
    /// What stays the same under all names of the file.
    struct Identity: Hashable, Sendable {
        let device: UInt64
        let inode: UInt64

        init(of status: stat) {
            device = UInt64(truncatingIfNeeded: status.st_dev)
            inode = UInt64(status.st_ino)
        }

        /// That of the file at a path, if there is one.
        init?(path: String) { self.init(path: Array(path.utf8)) }

        /// That of the file at a path, which is any bytes.
        init?(path: [UInt8]) {
            guard !path.contains(0) else { return nil }
            var status = stat()
            // SAFETY: the path ends in a zero, and outlives the call.
            guard unsafe stat(path.map { CChar(bitPattern: $0) } + [0], &status) == 0 else { return nil }
            self.init(of: status)
        }
    }

    /// Removes a file, unless its name means another one by now.
    ///
    /// What can't be removed stays.
    static func remove(_ path: String, ifStill identity: Identity?) {
        var status = stat()
        guard let identity, unsafe lstat(path, &status) == 0, Identity(of: status) == identity else { return }
        _ = unsafe unlink(path)
    }

    /// Returns once the name of a new file is on stable storage.
    ///
    /// - Parameters:
    ///   - path: The file's path.
    ///   - descriptor: The open file.
    ///   - calls: The system's calls.
    /// - Throws: ``QCOW2Error/Code/inputOutput``, but not where the file system doesn't flush folders at all.
    static func flushFolder(of path: String, _ descriptor: Int32, _ calls: some FileCalls) throws(QCOW2Error) {
        let folder = directoryOfFile(path).map { $0.isEmpty ? "/" : $0 } ?? "."
        let result: Result<Int32, SystemError>
        switch retryingInterrupts({ calls.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }) {
        case .success(let opened):
            result = retryingInterrupts { calls.flushFolder(opened) }
            _ = calls.close(opened)
        case .failure(let error):
            #if os(Linux)
                // A folder that may not be listed can't be opened; its whole file system can still be flushed.
                result = error.number == EACCES ? retryingInterrupts { syncfs(descriptor) } : .failure(error)
            #else
                result = .failure(error)
            #endif
        }
        guard case .failure(let error) = result, ![EINVAL, ENOTSUP, ENOSYS].contains(error.number) else { return }
        throw .system(error, "Flushing the folder of", path)
    }
}
