// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

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

    /// Writes bytes of a disk to standard output; without any, as many zeros as `byteCount` says.
    static func write(_ bytes: Span<UInt8>, or byteCount: UInt64) throws(QCOW2Error) {
        var error: Int32 = 0
        if bytes.isEmpty {
            let zeros = [UInt8](repeating: 0, count: Int(min(byteCount, 1 << 20)))
            var rest = byteCount
            while rest > 0, error == 0 {
                guard Interruption.signal == 0 else { throw QCOW2Error(.cancelled, "A signal asked for the end.") }
                let count = Int(min(rest, UInt64(zeros.count)))
                error = writeAll(zeros.span.extracting(..<count), to: 1)
                rest -= UInt64(count)
            }
        } else {
            error = writeAll(bytes, to: 1)
        }
        guard error != 0 else { return }
        throw QCOW2Error(
            .inputOutput, unsafe "Writing to standard output failed: \(String(cString: strerror(error))).")
    }

    /// The text in a file of at most 64 MiB.
    static func readFile(_ path: String) throws(Failure) -> String {
        func failure() -> Failure { Failure(unsafe "Reading '\(path)' failed: \(String(cString: strerror(errno))).") }
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure() }
        defer { _ = close(descriptor) }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while text.count < 64 << 20 {
            // SAFETY: the call is told the buffer's length.
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure() }
            if count == 0 { break }
            text += buffer[..<count]
        }
        return String(decoding: text, as: UTF8.self)
    }

    static func writeError(_ text: String) { _ = writeAll(Array(text.utf8), to: 2) }

    /// Writes everything, and returns 0 or the error number.
    static func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Int32 { writeAll(bytes.span, to: descriptor) }

    private static func writeAll(_ bytes: Span<UInt8>, to descriptor: Int32) -> Int32 {
        var done = 0
        while done < bytes.count {
            // SAFETY: the range is inside the span, which outlives the call.
            let result = unsafe bytes.withUnsafeBufferPointer { buffer in
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
