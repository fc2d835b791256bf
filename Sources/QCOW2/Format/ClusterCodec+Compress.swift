// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import CZlib

#if Zstd
    internal import CZstd
#endif

extension ClusterCodec {
    /// Compresses one cluster so that every reader of the format can decode it.
    ///
    /// - Returns: The bytes, or `nil` when they would not be shorter than the cluster.
    /// - Throws: ``QCOW2Error/Code/unsupported`` for zstd in a build without it.
    static func compress(_ cluster: Span<UInt8>, _ type: CompressionType) throws(QCOW2Error) -> [UInt8]? {
        switch type {
        case .deflate: return deflate(cluster)
        case .zstd:
            #if Zstd
                return encodeZstd(cluster)
            #else
                throw QCOW2Error(.unsupported, "Writing zstd clusters needs a build with the trait Zstd.")
            #endif
        }
    }

    /// Raw deflate with a window of 4 KiB, the largest that every reader knows.
    private static func deflate(_ cluster: Span<UInt8>) -> [UInt8]? {
        var output = [UInt8](repeating: 0, count: cluster.count - 1)
        // SAFETY: both buffers outlive the stream, which is told their lengths, ended before they go, and never writes
        // to its input.
        let count = unsafe cluster.withUnsafeBufferPointer { source in
            unsafe output.withUnsafeMutableBufferPointer { target -> Int? in
                var stream = unsafe z_stream()
                unsafe stream.next_in = source.baseAddress.map { unsafe UnsafeMutablePointer(mutating: $0) }
                unsafe stream.avail_in = UInt32(source.count)
                unsafe stream.next_out = target.baseAddress
                unsafe stream.avail_out = UInt32(target.count)
                let size = unsafe Int32(MemoryLayout<z_stream>.size)
                guard
                    unsafe deflateInit2_(
                        &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size)
                        == Z_OK
                else { return nil }
                defer { _ = unsafe deflateEnd(&stream) }
                guard unsafe CZlib.deflate(&stream, Z_FINISH) == Z_STREAM_END else { return nil }
                return unsafe target.count - Int(stream.avail_out)
            }
        }
        guard let count else { return nil }
        output.removeLast(output.count - count)
        return output
    }

    #if Zstd
        /// One frame that says how long it is.
        private static func encodeZstd(_ cluster: Span<UInt8>) -> [UInt8]? {
            var output = [UInt8](repeating: 0, count: cluster.count - 1)
            // SAFETY: the call is told the lengths of both buffers, which outlive it.
            let count = unsafe cluster.withUnsafeBufferPointer { source in
                unsafe output.withUnsafeMutableBufferPointer { target in
                    unsafe ZSTD_compress(
                        target.baseAddress, target.count, source.baseAddress, source.count, ZSTD_CLEVEL_DEFAULT)
                }
            }
            // It doesn't fit, so it isn't shorter.
            guard ZSTD_isError(count) == 0 else { return nil }
            output.removeLast(output.count - count)
            return output
        }
    #endif
}
