// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Compressed clusters as nobody honest writes them, and decoders without memory.
@Suite struct ClusterCodecTests {
    private func decode(_ input: [UInt8], _ type: CompressionType, _ count: Int) throws(QCOW2Error) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: count)
        var span = output.mutableSpan
        try ClusterCodec.decompress(input.span, type, into: &span, at: HostOffset(512))
        return output
    }

    #if Zstd
        /// A frame that says how long a window it needs and nothing of its length, with blocks of one byte repeated.
        private func frame(windowBits: Int, byteCount: Int, of byte: UInt8) -> [UInt8] {
            var bytes: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x00, UInt8((windowBits - 10) << 3)]
            var rest = byteCount
            while rest > 0 {
                let count = min(rest, 1 << min(17, windowBits))
                rest -= count
                let header = UInt32(count) << 3 | 1 << 1 | (rest == 0 ? 1 : 0)
                bytes += [UInt8(header & 0xFF), UInt8(header >> 8 & 0xFF), UInt8(header >> 16), byte]
            }
            return bytes
        }

        @Test("A zstd window longer than the cluster is corrupt, whatever it is for", arguments: 9...21)
        func window(_ clusterBits: Int) throws {
            let count = 1 << clusterBits
            for windowBits in 10...31 {
                let input = frame(windowBits: windowBits, byteCount: count, of: 7)
                guard windowBits > max(10, clusterBits) else {
                    #expect(try decode(input, .zstd, count) == [UInt8](repeating: 7, count: count))
                    continue
                }
                let error = #expect(throws: QCOW2Error.self) { try decode(input, .zstd, count) }
                #expect(error?.code == .corrupt && error?.offset == HostOffset(512), "\(windowBits)")
            }
        }

        @Test("What a compressor makes of one cluster is read", arguments: 9...21)
        func whole(_ clusterBits: Int) throws {
            let cluster = (0..<(1 << clusterBits)).map { UInt8(truncatingIfNeeded: $0 >> 3 ^ $0 >> 11) }
            let compressed = try #require(try ClusterCodec.compress(cluster.span, .zstd))
            #expect(try decode(compressed, .zstd, cluster.count) == cluster)
        }

        @Test("A zstd decoder without memory says that, and nothing about the image")
        func zstdMemory() {
            // ZSTD_error_memory_allocation, corruption_detected, frameParameter_windowTooLarge.
            #expect(ClusterCodec.outcome(ofZstd: -64) == .outOfMemory)
            #expect(ClusterCodec.outcome(ofZstd: -20) == .corrupt)
            #expect(ClusterCodec.outcome(ofZstd: -16) == .corrupt)
        }
    #endif

    @Test("A zlib decoder without memory says that, and nothing about the image")
    func zlibMemory() {
        for isFull in [true, false] {
            // Z_MEM_ERROR and Z_DATA_ERROR; Z_STREAM_END and Z_BUF_ERROR.
            #expect(ClusterCodec.outcome(ofInflate: -4, isFull: isFull) == .outOfMemory)
            #expect(ClusterCodec.outcome(ofInflate: -3, isFull: isFull) == .corrupt)
            for result in [1, -5] as [Int32] {
                #expect(ClusterCodec.outcome(ofInflate: result, isFull: isFull) == (isFull ? .whole : .corrupt))
            }
        }
    }
}
