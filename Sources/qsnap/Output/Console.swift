// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Standard output and standard error, written whole or reported as failed.
enum Console {
    /// Writes text to standard output.
    ///
    /// - Throws: ``Failure``; without a message when the reader has gone away, which needs no explanation.
    static func write(_ text: String) throws(Failure) {
        let error = writeAll(text, to: 1)
        guard error != 0 else { return }
        throw Failure(
            error == EPIPE ? "" : "Writing to standard output failed: \(unsafe String(cString: strerror(error))).")
    }

    static func writeError(_ text: String) { _ = writeAll(text, to: 2) }

    /// Writes everything, and returns 0 or the error number.
    private static func writeAll(_ text: String, to descriptor: Int32) -> Int32 {
        let bytes = Array(text.utf8)
        var done = 0
        while done < bytes.count {
            // SAFETY: the range is inside the array, which outlives the call.
            let result = unsafe bytes.withUnsafeBytes { buffer in
                #if canImport(Darwin)
                    unsafe Darwin.write(descriptor, buffer.baseAddress.map { unsafe $0 + done }, bytes.count - done)
                #elseif canImport(Glibc)
                    unsafe Glibc.write(descriptor, buffer.baseAddress.map { unsafe $0 + done }, bytes.count - done)
                #else
                    unsafe Musl.write(descriptor, buffer.baseAddress.map { unsafe $0 + done }, bytes.count - done)
                #endif
            }
            if result >= 0 { done += result } else if errno != EINTR { return errno }
        }
        return 0
    }
}
