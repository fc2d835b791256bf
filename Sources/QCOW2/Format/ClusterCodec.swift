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
/// Output never exceeds the cluster, whatever the input says, and the memory of a decoder is that of a window of at most
/// one cluster.
enum ClusterCodec {
    /// How decoding ended.
    enum Outcome: Hashable {
        case whole, corrupt, outOfMemory
    }

    /// Decompresses one cluster into `output`, which has its size.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` when the input doesn't decode to a whole cluster, or needs more memory for
    ///   it than any cluster of that size; ``QCOW2Error/Code/outOfMemory`` when the system refuses that;
    ///   ``QCOW2Error/Code/unsupported`` for zstd in a build without it.
    static func decompress(
        _ input: Span<UInt8>, _ type: CompressionType, into output: inout MutableSpan<UInt8>, at offset: HostOffset
    ) throws(QCOW2Error) {
        let outcome: Outcome
        switch type {
        case .deflate: outcome = inflate(input, into: &output)
        case .zstd:
            #if Zstd
                outcome = decodeZstd(input, into: &output)
            #else
                throw QCOW2Error(.unsupported, "Reading zstd clusters needs a build with the trait Zstd.", at: offset)
            #endif
        }
        switch outcome {
        case .whole: return
        case .corrupt: throw .invalid("compressed cluster", "it doesn't decode to a whole cluster", at: offset)
        case .outOfMemory: throw QCOW2Error(.outOfMemory, "There is no memory to decompress a cluster.", at: offset)
        }
    }

    /// What a result of zlib means.
    static func outcome(ofInflate result: Int32, isFull: Bool) -> Outcome {
        switch result {
        // A full output is all that counts, whether the stream goes on or not.
        case Z_STREAM_END, Z_BUF_ERROR: isFull ? .whole : .corrupt
        case Z_MEM_ERROR: .outOfMemory
        default: .corrupt
        }
    }

    /// Raw deflate, without a header.
    private static func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Outcome {
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
                let started = unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, size)
                guard started == Z_OK else { return outcome(ofInflate: started, isFull: false) }
                defer { _ = unsafe inflateEnd(&stream) }
                let result = unsafe CZlib.inflate(&stream, Z_FINISH)
                return outcome(ofInflate: result, isFull: unsafe stream.avail_out == 0)
            }
        }
    }

    #if Zstd
        /// What an error of zstd means.
        static func outcome(ofZstd error: Int) -> Outcome {
            ZSTD_getErrorCode(error) == ZSTD_error_memory_allocation ? .outOfMemory : .corrupt
        }

        /// One or more zstd frames.
        private static func decodeZstd(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Outcome {
            // SAFETY: both buffers outlive the stream, which is told their lengths and freed before they go.
            unsafe input.withUnsafeBufferPointer { source in
                unsafe output.withUnsafeMutableBufferPointer { target in
                    guard let stream = unsafe ZSTD_createDStream() else { return .outOfMemory }
                    defer { _ = unsafe ZSTD_freeDStream(stream) }
                    // No cluster needs a longer window than itself, and whoever compresses one at once doesn't write a
                    // longer one. 1 KiB is the shortest that there is.
                    let windowBits = Int32(max(10, target.count.bitWidth - (target.count - 1).leadingZeroBitCount))
                    let limited = unsafe ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, windowBits)
                    guard ZSTD_isError(limited) == 0 else { return outcome(ofZstd: limited) }
                    var from = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
                    var to = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
                    while unsafe to.pos < to.size {
                        let before = unsafe (from.pos, to.pos)
                        let result = unsafe ZSTD_decompressStream(stream, &to, &from)
                        guard ZSTD_isError(result) == 0 else { return outcome(ofZstd: result) }
                        guard unsafe (from.pos, to.pos) != before else { return .corrupt }
                    }
                    return .whole
                }
            }
        }
    #endif
}
