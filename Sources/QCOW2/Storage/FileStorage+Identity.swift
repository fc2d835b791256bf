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
        init?(path: String) {
            var status = stat()
            guard unsafe stat(path, &status) == 0 else { return nil }
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

    /// Returns once the name of a new file is on stable storage, where the system can say so.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``, but not when the folder can't be opened or flushed as a file can.
    static func flushFolder(of path: String) throws(QCOW2Error) {
        let parts = path.utf8.lastIndex(of: UInt8(ascii: "/"))
        let folder = parts.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let descriptor = unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { _ = close(descriptor) }
        let result = retryingInterrupts { fsync(descriptor) }
        guard case .failure(let error) = result, ![EINVAL, ENOTSUP, EBADF].contains(error.number) else { return }
        throw .system(error, "Flushing", folder)
    }
}
