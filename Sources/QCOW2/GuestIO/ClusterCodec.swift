// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import CZlib

#if Zstd
    internal import CZstd
#endif

/// Decompresses clusters.
///
/// Section "2.5 Compressed cluster descriptor".
///
/// The exact compressed length isn't stored: decoding goes on until the cluster is full and ignores what follows.
/// Output never exceeds the cluster, whatever the input says.
enum ClusterCodec {
    /// Decompresses one cluster into `output`, which has its size.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` when the input doesn't decode to a whole cluster;
    ///   ``QCOW2Error/Code/unsupported`` for zstd in a build without it.
    static func decompress(
        _ input: Span<UInt8>, _ type: CompressionType, into output: inout MutableSpan<UInt8>, at offset: HostOffset
    ) throws(QCOW2Error) {
        let isWhole: Bool
        switch type {
        case .deflate: isWhole = inflate(input, into: &output)
        case .zstd:
            #if Zstd
                isWhole = decodeZstd(input, into: &output)
            #else
                throw QCOW2Error(.unsupported, "Reading zstd clusters needs a build with the trait Zstd.", at: offset)
            #endif
        }
        guard isWhole else { throw .invalid("compressed cluster", "it doesn't decode to a whole cluster", at: offset) }
    }

    /// Raw deflate, without a header.
    private static func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Bool {
        // SAFETY: both buffers outlive the stream, which is told their lengths, ended before they go, and never writes
        // to its input.
        unsafe input.withUnsafeBufferPointer { source in
            unsafe output.withUnsafeMutableBufferPointer { target in
                var stream = unsafe z_stream()
                unsafe stream.next_in = source.baseAddress.map { unsafe UnsafeMutablePointer(mutating: $0) }
                unsafe stream.avail_in = UInt32(source.count)
                unsafe stream.next_out = target.baseAddress
                unsafe stream.avail_out = UInt32(target.count)
                let size = unsafe Int32(MemoryLayout<z_stream>.size)
                guard unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, size) == Z_OK else { return false }
                defer { _ = unsafe inflateEnd(&stream) }
                let result = unsafe CZlib.inflate(&stream, Z_FINISH)
                // A full output is all that counts, whether the stream goes on or not.
                return unsafe stream.avail_out == 0 && (result == Z_STREAM_END || result == Z_BUF_ERROR)
            }
        }
    }

    #if Zstd
        /// One or more zstd frames.
        private static func decodeZstd(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Bool {
            // SAFETY: both buffers outlive the stream, which is told their lengths and freed before they go.
            unsafe input.withUnsafeBufferPointer { source in
                unsafe output.withUnsafeMutableBufferPointer { target in
                    guard let stream = unsafe ZSTD_createDStream() else { return false }
                    defer { _ = unsafe ZSTD_freeDStream(stream) }
                    var from = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
                    var to = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
                    while unsafe to.pos < to.size {
                        let before = unsafe (from.pos, to.pos)
                        guard unsafe ZSTD_isError(ZSTD_decompressStream(stream, &to, &from)) == 0 else { return false }
                        guard unsafe (from.pos, to.pos) != before else { return false }
                    }
                    return true
                }
            }
        }
    #endif
}
