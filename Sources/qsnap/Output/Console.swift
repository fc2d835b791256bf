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
    /// - Parameters:
    ///   - text: What to write.
    ///   - sentence: What has been done already, for the failure to say.
    /// - Throws: ``Failure``; without a message when nothing was done and the reader has gone away, which needs no
    ///   explanation.
    static func write(_ text: String, after sentence: String? = nil) throws(Failure) {
        let error = writeAll(Array(text.utf8), to: 1)
        guard error != 0 else { return }
        let reason = unsafe "riting to standard output failed: \(String(cString: strerror(error)))."
        if let sentence { throw Failure("\(sentence.dropLast()), but w\(reason)") }
        throw Failure(error == EPIPE ? "" : "W\(reason)")
    }

    static func writeError(_ text: String) { _ = writeAll(Array(text.utf8), to: 2) }

    /// Writes everything, and returns 0 or the error number.
    static func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32 {
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
