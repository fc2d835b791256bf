// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// The system calls that an image file needs.
///
/// Each does what the call of the operating system does, with its result: a negative one is a failure, with `errno`
/// set. The tests put others in their place, which fail, are interrupted or do half of the work.
protocol FileCalls: Sendable {
    func open(_ path: String, _ flags: Int32) -> Int32
    /// Opens what is at an absolute path, if no symbolic link is on the way to it, nor there.
    func openFollowingNoLinks(_ path: String, _ flags: Int32) -> Int32
    func close(_ descriptor: Int32) -> Int32
    func status(_ descriptor: Int32, _ status: inout stat) -> Int32
    func read(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, _ position: off_t) -> Int
    func write(_ descriptor: Int32, _ buffer: UnsafeRawBufferPointer, _ position: off_t) -> Int
    /// Says that a range will be read soon; does nothing where there is no such call.
    func advise(_ descriptor: Int32, _ start: off_t, _ length: off_t)
    /// Empties all caches on the way to the medium, the drive's own included.
    func flush(_ descriptor: Int32) -> Int32
    /// Does the same for the names in a folder.
    func flushFolder(_ descriptor: Int32) -> Int32
    /// Gives a file another name besides, if that isn't taken.
    func link(_ path: String, _ newPath: String) -> Int32
    /// Gives a file another name instead, taking it from whatever has it.
    func rename(_ path: String, _ newPath: String) -> Int32
    func truncate(_ descriptor: Int32, _ length: off_t) -> Int32
    func punch(_ descriptor: Int32, _ start: off_t, _ length: off_t) -> Int32
    /// Sets or tests a lock on a range of bytes.
    func control(_ descriptor: Int32, _ command: Int32, _ lock: inout flock) -> Int32
    /// The lock on the whole file that only programs which ask for it respect.
    func lockWhole(_ descriptor: Int32, _ operation: Int32) -> Int32
}

/// The operating system's own calls.
///
/// Has no size and no indirection: what is generic over the calls is specialized for these.
struct KernelCalls: FileCalls {
    func open(_ path: String, _ flags: Int32) -> Int32 { openFile(path, flags) }
    func openFollowingNoLinks(_ path: String, _ flags: Int32) -> Int32 { walkTo(path, flags) }
    func close(_ descriptor: Int32) -> Int32 { closeFile(descriptor) }
    func status(_ descriptor: Int32, _ status: inout stat) -> Int32 { unsafe fstat(descriptor, &status) }

    func read(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, _ position: off_t) -> Int {
        unsafe pread(descriptor, buffer.baseAddress, buffer.count, position)
    }

    func advise(_ descriptor: Int32, _ start: off_t, _ length: off_t) {
        #if os(Linux)
            _ = posix_fadvise(descriptor, start, length, POSIX_FADV_WILLNEED)
        #endif
    }

    func write(_ descriptor: Int32, _ buffer: UnsafeRawBufferPointer, _ position: off_t) -> Int {
        let count = unsafe pwrite(descriptor, buffer.baseAddress, buffer.count, position)
        #if os(Linux)
            // Starts writing what is large, so that the flush that follows has less to wait for; promises nothing.
            if count >= 1 << 18 {
                let saved = errno
                _ = sync_file_range(descriptor, position, off_t(count), UInt32(SYNC_FILE_RANGE_WRITE))
                errno = saved
            }
        #endif
        return count
    }

    func flush(_ descriptor: Int32) -> Int32 {
        #if canImport(Darwin)
            // On Darwin fsync is no barrier: it doesn't empty the drive's own cache.
            fcntl(descriptor, F_FULLFSYNC, 0)
        #else
            fdatasync(descriptor)
        #endif
    }

    func flushFolder(_ descriptor: Int32) -> Int32 { fsync(descriptor) }
    func link(_ path: String, _ newPath: String) -> Int32 { linkFile(path, newPath) }
    func rename(_ path: String, _ newPath: String) -> Int32 { renameFile(path, newPath) }

    func truncate(_ descriptor: Int32, _ length: off_t) -> Int32 { ftruncate(descriptor, length) }

    func punch(_ descriptor: Int32, _ start: off_t, _ length: off_t) -> Int32 {
        #if canImport(Darwin)
            var hole = fpunchhole_t(fp_flags: 0, reserved: 0, fp_offset: start, fp_length: length)
            return unsafe fcntl(descriptor, F_PUNCHHOLE, &hole)
        #else
            return fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length)
        #endif
    }

    func control(_ descriptor: Int32, _ command: Int32, _ lock: inout flock) -> Int32 {
        unsafe fcntl(descriptor, command, &lock)
    }

    func lockWhole(_ descriptor: Int32, _ operation: Int32) -> Int32 { flock(descriptor, operation) }
}

// The functions under names that the type's own members don't shadow; a new file's permissions are left to the umask.
private func openFile(_ path: String, _ flags: Int32) -> Int32 { unsafe open(path, flags, 0o644) }
private func closeFile(_ descriptor: Int32) -> Int32 { close(descriptor) }
private func linkFile(_ path: String, _ newPath: String) -> Int32 { unsafe link(path, newPath) }
private func renameFile(_ path: String, _ newPath: String) -> Int32 { unsafe rename(path, newPath) }

/// Opens a file folder by folder, each from the one before: whatever becomes of the path meanwhile, no link is followed.
private func walkTo(_ path: String, _ flags: Int32) -> Int32 {
    #if canImport(Darwin)
        // One call does it.
        return openFile(path, flags | O_NOFOLLOW_ANY)
    #else
        let names = path.utf8.split(separator: UInt8(ascii: "/")).map { String(Substring($0)) }
        guard path.hasPrefix("/"), let last = names.last else {
            errno = ENOENT
            return -1
        }
        // Only for finding what is in it: that needs no permission to list the folder.
        let folderFlags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        var folder = openFile("/", folderFlags)
        for (name, flags) in names.dropLast().map({ ($0, folderFlags) }) + [(last, flags | O_NOFOLLOW)] {
            guard folder >= 0 else { break }
            let next = unsafe openat(folder, name, flags)
            let saved = errno
            _ = close(folder)
            errno = saved
            folder = next
        }
        return folder
    #endif
}
