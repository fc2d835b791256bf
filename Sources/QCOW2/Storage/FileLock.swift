// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Which lock of another process excluded a use of an image.
public struct LockConflict: Error, Hashable, Sendable {
    /// The byte of the file: 100 + p where others use permission p, 200 + p where they forbid it.
    public let byte: Int
    /// Whether the byte couldn't even be locked for sharing.
    public let isExclusive: Bool
}

/// The locks by which QEMU's programs and this library keep out of each other's way.
///
/// Section "6.10 Locking".
///
/// A process that uses an image takes shared locks on single bytes of it: byte 100 + p says "I use permission p",
/// byte 200 + p says "I forbid others permission p". It then tests whether somebody forbids what it uses or uses what
/// it forbids. As the test follows the locking, two that start at once may both fail but never both win. The locks
/// belong to the open file, so they end with it, however the process ends.
struct FileLock: Hashable, Sendable {
    /// The bytes to lock, all shared.
    let locked: [Int]
    /// The bytes that nobody else may hold, with what it means if somebody does.
    let tested: [Int]
    let isExclusive: Bool

    /// For reading metadata and data while nobody writes.
    static let reading = FileLock(locked: [100, 201, 203], tested: [200, 101, 103], isExclusive: false)
    /// For writing, alone.
    static let writing = FileLock(
        locked: [100, 101, 103, 201, 203], tested: [200, 201, 203, 101, 103], isExclusive: true)

    /// Takes the locks on an open file, without waiting.
    ///
    /// Where the system or the file system has no locks on bytes it takes one on the whole file. Such a lock excludes
    /// only programs that ask for the same: this library, and on Darwin those that use `flock` as is usual there. QEMU
    /// sees none of it: on Linux it refuses such a file unless it is told to use no locks, and elsewhere it takes none.
    /// So on Linux that is not enough for writing, unless the requirement says so.
    ///
    /// - Returns: Which locks they are.
    /// - Throws: ``QCOW2Error/Code/inUse`` when another process holds a lock that excludes this use;
    ///   ``QCOW2Error/Code/locksUnavailable``; ``QCOW2Error/Code/inputOutput`` when locking failed for another reason
    ///   than that there are no locks.
    func take(
        on descriptor: Int32, _ path: String, _ requirement: FileStorage.LockRequirement, _ calls: some FileCalls
    ) throws(QCOW2Error) -> FileStorage.Locking {
        #if os(Linux)
            guard let missing = try takeByteRanges(on: descriptor, path, calls) else { return .byteRanges }
            Self.release(on: descriptor, calls)
            let (locking, _) = try takeAdvisory(on: descriptor, path, calls)
            guard !isExclusive || requirement == .ifAvailable else { throw unavailable(missing, path) }
        #else
            let (locking, missing) = try takeAdvisory(on: descriptor, path, calls)
            if let missing, isExclusive, requirement != .ifAvailable { throw unavailable(missing, path) }
        #endif
        return locking
    }

    #if os(Linux)
        /// Takes the locks on single bytes.
        ///
        /// - Returns: Why there are no such locks, if so; some of them may be held then.
        private func takeByteRanges(
            on descriptor: Int32, _ path: String, _ calls: some FileCalls
        ) throws(QCOW2Error) -> SystemError? {
            for byte in locked {
                var lock = Self.range(byte, Int16(F_RDLCK))
                guard case .failure(let error) = retryingInterrupts({ calls.control(descriptor, F_OFD_SETLK, &lock) })
                else { continue }
                if error.meansNoLocks { return error }
                // Not EACCES, by which other systems say the same: here it is a security module's refusal.
                guard error.number == EAGAIN else { throw .system(error, "Locking", path) }
                throw inUse(descriptor, path, LockConflict(byte: byte, isExclusive: true))
            }
            for byte in tested {
                var lock = Self.range(byte, Int16(F_WRLCK))
                if case .failure(let error) = retryingInterrupts({ calls.control(descriptor, F_OFD_GETLK, &lock) }) {
                    if error.meansNoLocks { return error }
                    throw .system(error, "Testing the locks of", path)
                }
                if lock.l_type != Int16(F_UNLCK) {
                    throw inUse(descriptor, path, LockConflict(byte: byte, isExclusive: false))
                }
            }
            return nil
        }
    #endif

    /// Gives all locks on an open file back, just before it is closed.
    ///
    /// Closing is not enough: while another thread starts a process, that process holds a copy of the descriptor, and
    /// with it the locks, until it has become the other program.
    static func release(on descriptor: Int32, _ calls: some FileCalls) {
        #if os(Linux)
            var lock = flock(l_type: Int16(F_UNLCK), l_whence: Int16(SEEK_SET), l_start: 100, l_len: 104, l_pid: 0)
            _ = retryingInterrupts { calls.control(descriptor, F_OFD_SETLK, &lock) }
        #endif
        _ = retryingInterrupts { calls.lockWhole(descriptor, LOCK_UN) }
    }

    /// Takes a lock on the whole file, if there are such.
    private func takeAdvisory(
        on descriptor: Int32, _ path: String, _ calls: some FileCalls
    ) throws(QCOW2Error) -> (FileStorage.Locking, missing: SystemError?) {
        let result = retryingInterrupts {
            calls.lockWhole(descriptor, (isExclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)
        }
        guard case .failure(let error) = result else { return (.advisory, nil) }
        if error.meansNoLocks { return (.unavailable, error) }
        throw error.number == EWOULDBLOCK ? inUse(descriptor, path) : .system(error, "Locking", path)
    }

    private func unavailable(_ reason: SystemError, _ path: String) -> QCOW2Error {
        QCOW2Error(
            .locksUnavailable,
            "'\(path)' can't be locked, so nothing would keep a running virtual machine from writing to it, too: "
                + "\(reason).", cause: reason)
    }

    private func inUse(_ descriptor: Int32, _ path: String, _ conflict: LockConflict? = nil) -> QCOW2Error {
        var holder = "another process, such as a running virtual machine"
        #if os(Linux)
            holder = Self.holder(of: descriptor) ?? holder
        #endif
        return QCOW2Error(
            .inUse,
            isExclusive
                ? "'\(path)' is in use by \(holder); stop it first."
                : "'\(path)' is being written by \(holder); stop it first, or read without locking.",
            cause: conflict)
    }

    #if os(Linux)
        private static func range(_ byte: Int, _ kind: Int16) -> flock {
            flock(l_type: kind, l_whence: Int16(SEEK_SET), l_start: byte, l_len: 1, l_pid: 0)
        }
    #endif
}

extension SystemError {
    /// Whether a call for locking says that the system or the file system has no such locks.
    fileprivate var meansNoLocks: Bool { [ENOLCK, ENOTSUP, EOPNOTSUPP, EINVAL, ENOSYS].contains(number) }
}
