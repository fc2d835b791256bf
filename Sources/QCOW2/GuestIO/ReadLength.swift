// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// How much one read may return in an array of its own.
///
/// An array that can't be allocated ends the process, so whatever a caller asks for is checked before there is one.
enum ReadLength {
    /// 2 GiB, as for a single read of a file on Linux.
    static let maximum = 1 << 31

    /// Makes sure that an array of some length can be had: it is short enough, and the system has the memory now.
    ///
    /// - Throws: ``QCOW2Error/Code/limitExceeded`` or ``QCOW2Error/Code/outOfMemory``.
    static func check(_ byteCount: Int) throws(QCOW2Error) {
        guard byteCount <= maximum else {
            throw QCOW2Error(
                .limitExceeded, "\(byteCount) bytes are too many for one read; read at most \(maximum) at once.")
        }
        // Smaller ones come from memory that the process has, or it is at its end anyway.
        guard byteCount >= 1 << 20 else { return }
        // Not malloc, which the compiler leaves out where nothing uses the memory.
        // SAFETY: the memory is never used, and given back at once.
        let memory = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0)
        guard unsafe memory != MAP_FAILED else {
            throw QCOW2Error(.outOfMemory, "There is no memory for \(byteCount) bytes; read less at once.")
        }
        _ = unsafe munmap(memory, byteCount)
    }
}
