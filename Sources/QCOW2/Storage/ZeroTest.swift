// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

extension Span<UInt8> {
    /// Whether a range holds zeros only; as fast as the system compares memory, in debug builds too.
    func isZero(in range: Range<Int>) -> Bool {
        let part = extracting(range)
        guard part.count > 0 else { return true }
        guard part[0] == 0 else { return false }
        // SAFETY: both ranges are inside the span. Each byte equals the one before it, so all equal the first.
        return unsafe part.withUnsafeBufferPointer { bytes in
            guard let start = bytes.baseAddress else { return true }
            return unsafe memcmp(start, start + 1, bytes.count - 1) == 0
        }
    }
}
