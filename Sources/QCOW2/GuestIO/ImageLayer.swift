// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads what lies below: the backing file, zeros, or nothing that may be read.
typealias LowerRead = (_ buffer: inout MutableSpan<UInt8>, _ guestOffset: UInt64) throws(QCOW2Error) -> Void

/// One state of one qcow2 image, readable: the only code that turns guest offsets into bytes.
struct ImageLayer: Sendable {
    let map: ClusterMap
    let slices: L2SliceCache
    let compressionType: CompressionType
    let encryption: EncryptionMethod

    init(_ map: ClusterMap, _ header: Header, _ slices: L2SliceCache) {
        self.map = map
        self.slices = slices
        compressionType = header.compressionType ?? .deflate
        encryption = header.encryption
    }

    /// Fills `buffer` with guest bytes, straight from the file where they aren't compressed.
    ///
    /// Host clusters that follow each other are read at once.
    func read(
        into buffer: inout MutableSpan<UInt8>, at start: UInt64, _ read: FileRead, below: LowerRead
    ) throws(QCOW2Error) {
        var cursor = SegmentCursor(map, in: start..<(start + UInt64(buffer.count)))
        let load: SliceLoad = { (offset, byteCount) throws(QCOW2Error) in
            try slices.slice(at: offset, byteCount, read: read)
        }
        var done = 0
        while let segment = try cursor.next(load) {
            let count = Int(segment.byteCount)
            var part = buffer._mutatingExtracting(done..<(done + count))
            switch segment.mapping {
            case .unallocated: try below(&part, segment.start)
            case .zero, .pastEnd: part.update(repeating: 0)
            case .data(let host):
                try encryption.checkReadable()
                try read(&part, host)
            case .compressed(let compressed):
                try encryption.checkReadable()
                try decompress(compressed, from: segment.start, into: &part, read)
            }
            done += count
        }
    }

    /// Decompresses the cluster around a guest offset, of which `buffer` wants a part.
    private func decompress(
        _ compressed: CompressedCluster, from start: UInt64, into buffer: inout MutableSpan<UInt8>, _ read: FileRead
    ) throws(QCOW2Error) {
        // Safe: the descriptor's bits allow at most two clusters.
        var input = [UInt8](repeating: 0, count: Int(compressed.byteCount))
        var inputSpan = input.mutableSpan
        try read(&inputSpan, compressed.offset)
        let clusterByteCount = map.geometry.clusterByteCount
        if buffer.count == clusterByteCount {
            return try ClusterCodec.decompress(input.span, compressionType, into: &buffer, at: compressed.offset)
        }
        var cluster = [UInt8](repeating: 0, count: clusterByteCount)
        var clusterSpan = cluster.mutableSpan
        try ClusterCodec.decompress(input.span, compressionType, into: &clusterSpan, at: compressed.offset)
        let first = Int(start & (map.geometry.clusterSize - 1))
        for index in 0..<buffer.count { buffer[index] = cluster[first + index] }
    }
}
