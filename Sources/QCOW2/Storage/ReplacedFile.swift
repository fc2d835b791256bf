// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// A file whose name another one will get: locked until then as for writing, so that nobody uses it.
final class ReplacedFile: Sendable {
    let path: String
    let identity: FileStorage.Identity
    private let mode: mode_t
    private let owner: uid_t
    private let group: gid_t
    private let descriptor: Int32
    private let calls: any FileCalls

    /// Opens and locks the file at a path; `nil` when there is none.
    ///
    /// A symbolic link stays, and the file that it leads to is the one.
    ///
    /// - Throws: ``QCOW2Error/Code/inUse`` when another process uses it; ``QCOW2Error/Code/locksUnavailable``, or
    ///   ``QCOW2Error/Code/inputOutput``, also for what isn't a regular file.
    init?(
        at name: String, _ requirement: FileStorage.LockRequirement, _ calls: any FileCalls
    ) throws(QCOW2Error) {
        guard let path = canonicalPath(name) else { return nil }
        let opened: Int32
        switch retryingInterrupts({ calls.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }) {
        case .success(let number): opened = number
        case .failure(let error): throw .system(error, "Opening", name)
        }
        var status = stat()
        let result = retryingInterrupts { calls.status(opened, &status) }
        self.path = path
        self.calls = calls
        descriptor = opened
        (mode, owner, group) = (status.st_mode, status.st_uid, status.st_gid)
        identity = FileStorage.Identity(of: status)
        if case .failure(let error) = result { throw .system(error, "Inspecting", name) }
        guard mode & S_IFMT == S_IFREG else {
            throw QCOW2Error(.inputOutput, "'\(name)' is there already, and no regular file.")
        }
        _ = try FileLock.writing.take(on: descriptor, name, requirement, calls)
    }

    deinit {
        FileLock.release(on: descriptor, calls)
        _ = calls.close(descriptor)
    }

    /// Gives another file the same owner, group and permissions, which are all that it keeps.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` when this process may not do that.
    func lendOwnership(to descriptor: Int32) throws(QCOW2Error) {
        var status = stat()
        if case .failure(let error) = retryingInterrupts({ calls.status(descriptor, &status) }) {
            throw .system(error, "Inspecting", path)
        }
        if status.st_uid != owner || status.st_gid != group,
            case .failure(let error) = retryingInterrupts({ fchown(descriptor, owner, group) })
        {
            throw .system(error, "Keeping the owner of", path)
        }
        if case .failure(let error) = retryingInterrupts({ fchmod(descriptor, mode & 0o7777) }) {
            throw .system(error, "Keeping the permissions of", path)
        }
    }
}
