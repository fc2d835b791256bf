// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// An error number of the operating system.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The value of `errno`.
    public let number: Int32

    /// The operating system's sentence for it.
    public var description: String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            unsafe buffer.initialize(repeating: 0)
            guard let text = buffer.baseAddress else { return "" }
            // SAFETY: either call returns or leaves a terminated string that lives as long as the buffer, or longer.
            #if canImport(Glibc)
                return unsafe String(cString: strerror_r(number, text, buffer.count))  // May leave the buffer alone.
            #else
                _ = unsafe strerror_r(number, text, buffer.count)
                return unsafe String(cString: text)
            #endif
        }
    }

    static var last: SystemError { SystemError(number: errno) }

    /// Whether the path leads nowhere.
    public var isMissingFile: Bool { number == ENOENT || number == ENOTDIR }
    /// Whether the file system is full, or a quota or file size limit was reached.
    public var isOutOfSpace: Bool { number == ENOSPC || number == EDQUOT || number == EFBIG }
    /// Whether permission is missing.
    public var isPermissionDenied: Bool { number == EACCES || number == EPERM || number == EROFS }
}

extension QCOW2Error {
    /// Turns a system call's failure into a sentence.
    static func system(
        _ error: SystemError, _ doing: String, _ file: String, at offset: HostOffset? = nil
    ) -> Self {
        let hint =
            if error.isMissingFile {
                "; check the path"
            } else if error.isPermissionDenied {
                "; check the permissions of the file and its file system"
            } else if error.isOutOfSpace {
                "; free some space, then try again"
            } else {
                ""
            }
        return Self(.inputOutput, "\(doing) '\(file)' failed: \(error)\(hint).", at: offset, cause: error)
    }
}

/// Repeats a system call that a signal interrupted.
///
/// A negative result is a failure with `errno` set.
func retryingInterrupts<Result: SignedInteger>(_ body: () -> Result) -> Swift.Result<Result, SystemError> {
    while true {
        let result = body()
        if result >= 0 { return .success(result) }
        if errno != EINTR { return .failure(.last) }
    }
}
