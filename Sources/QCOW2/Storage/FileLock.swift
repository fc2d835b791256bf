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
    /// - Returns: Which locks they are.
    /// - Throws: ``QCOW2Error/Code/inUse`` when another process holds a lock that excludes this use.
    func take(
        on descriptor: Int32, _ path: String, _ calls: some FileCalls
    ) throws(QCOW2Error) -> FileStorage.Locking {
        #if os(Linux)
            for byte in locked {
                var lock = Self.range(byte, Int16(F_RDLCK))
                let result = retryingInterrupts { calls.control(descriptor, F_OFD_SETLK, &lock) }
                guard case .failure(let error) = result else { continue }
                if error.number == EAGAIN || error.number == EACCES {
                    throw inUse(descriptor, path, LockConflict(byte: byte, isExclusive: true))
                }
                // A kernel or file system without these locks: QEMU takes none either, so only we exclude each other.
                return try takeAdvisory(on: descriptor, path, calls)
            }
            for byte in tested {
                var lock = Self.range(byte, Int16(F_WRLCK))
                let result = retryingInterrupts { calls.control(descriptor, F_OFD_GETLK, &lock) }
                if case .failure(let error) = result { throw .system(error, "Testing the locks of", path) }
                if lock.l_type != Int16(F_UNLCK) {
                    throw inUse(descriptor, path, LockConflict(byte: byte, isExclusive: false))
                }
            }
            return .byteRanges
        #else
            return try takeAdvisory(on: descriptor, path, calls)
        #endif
    }

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

    private func takeAdvisory(
        on descriptor: Int32, _ path: String, _ calls: some FileCalls
    ) throws(QCOW2Error) -> FileStorage.Locking {
        let result = retryingInterrupts {
            calls.lockWhole(descriptor, (isExclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)
        }
        switch result {
        case .success: return .advisory
        case .failure(let error) where error.number == EWOULDBLOCK: throw inUse(descriptor, path)
        case .failure: return .unavailable
        }
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
