// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A chunk on its way into an image: its bytes, and its clusters compressed where that makes them shorter.
private final class ImageChunk: Sendable {
    enum Cluster: Sendable {
        case zero, plain
        case compressed([UInt8])
    }

    let buffer = ChunkBuffer(byteCount: 1 << 20)
    // SAFETY: the pipeline's monitor orders every use by one thread before that by the next.
    private nonisolated(unsafe) var clusters: [Cluster] = []
    private let clusterByteCount = 1 << StandaloneImage.clusterBits

    /// Looks at each cluster of a chunk that has been read.
    func sort(_ chunk: DiskChunk, _ compression: CompressionType?) throws(QCOW2Error) {
        unsafe clusters.removeAll(keepingCapacity: true)
        try buffer.withBytes(of: chunk) { (bytes) throws(QCOW2Error) in
            for start in stride(from: 0, to: bytes.count, by: clusterByteCount) {
                let range = start..<min(start + clusterByteCount, bytes.count)
                unsafe clusters.append(try cluster(bytes.extracting(range), compression))
            }
        }
    }

    private func cluster(_ bytes: Span<UInt8>, _ compression: CompressionType?) throws(QCOW2Error) -> Cluster {
        if bytes.isZero(in: 0..<bytes.count) { return .zero }
        guard let compression else { return .plain }
        if bytes.count < clusterByteCount {
            // The disk ends inside its last cluster.
            let whole =
                [UInt8](copying: bytes, 0..<bytes.count)
                + [UInt8](repeating: 0, count: clusterByteCount - bytes.count)
            return try ClusterCodec.compress(whole.span, compression).map { .compressed($0) } ?? .plain
        }
        return try ClusterCodec.compress(bytes, compression).map { .compressed($0) } ?? .plain
    }

    /// Adds the clusters to an image, plain neighbours at once.
    func add(_ chunk: DiskChunk, to image: inout StandaloneImage) throws(QCOW2Error) {
        var index = 0
        let count = unsafe clusters.count
        while index < count {
            let guest = chunk.start + UInt64(index * clusterByteCount)
            switch unsafe clusters[index] {
            case .zero: break
            case .compressed(let compressed): try image.add(compressed: compressed.span, at: guest)
            case .plain:
                let first = index
                while index + 1 < count, case .plain = unsafe clusters[index + 1] { index += 1 }
                let end = (index + 1) * clusterByteCount
                try buffer.withBytes(of: chunk) { (bytes) throws(QCOW2Error) in
                    try image.add(bytes.extracting((first * clusterByteCount)..<min(end, bytes.count)), at: guest)
                }
            }
            index += 1
        }
    }
}

extension DiskView {
    /// Writes the disk as an image of its own.
    ///
    /// - Returns: The file's length.
    func exportImage(
        to file: NewFile, _ compression: CompressionType?, _ options: ExportOptions
    ) throws(QCOW2Error) -> UInt64 {
        var image = try StandaloneImage(file, virtualSize: virtualSize, compression: compression)
        let threadCount = options.threadCount ?? Threads.processorCount
        let chunks = (0..<(2 * max(1, threadCount))).map { _ in ImageChunk() }
        var meter = WorkMeter(options.progress)
        meter.expect(virtualSize)
        try ChunkPipeline(ChunkSource(self), chunks).run(threadCount: threadCount) {
            (chunk, place) throws(QCOW2Error) in
            try place.buffer.fill(chunk, from: self)
            try place.sort(chunk, compression)
        } finish: { (chunk, place) throws(QCOW2Error) in
            try place.add(chunk, to: &image)
            try meter.advance(by: chunk.byteCount)
        }
        return try image.finish()
    }
}
