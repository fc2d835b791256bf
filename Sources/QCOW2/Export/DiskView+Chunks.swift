// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A buffer that one thread at a time owns, as the pipeline hands it on.
final class ChunkBuffer: Sendable {
    // SAFETY: the pipeline's monitor orders every use by one thread before that by the next.
    private nonisolated(unsafe) var bytes: [UInt8]
    // SAFETY: the same; what one thread found, the next one reads after the monitor was locked in between.
    private nonisolated(unsafe) var parts: [Range<Int>] = []

    init(byteCount: Int) { unsafe bytes = [UInt8](repeating: 0, count: byteCount) }

    /// Reads a chunk into the buffer.
    func fill(_ chunk: DiskChunk, from view: DiskView) throws(QCOW2Error) {
        guard !chunk.isZero else { return }
        try unsafe bytes.withMutableSpan(of: 0..<Int(chunk.byteCount)) { (part) throws(QCOW2Error) in
            try view.read(into: &part, at: GuestOffset(chunk.start))
        }
    }

    /// Reads a chunk, and finds the parts of it that hold other bytes than zeros.
    func fillParts(_ chunk: DiskChunk, from view: DiskView) throws(QCOW2Error) {
        try fill(chunk, from: view)
        var parts: [Range<Int>] = []
        try withBytes(of: chunk) { (bytes) throws(QCOW2Error) in
            try bytes.forEachNonZeroPart { parts.append($0) }
        }
        unsafe self.parts = parts
    }

    /// Lends the parts of a chunk that ``fillParts(_:from:)`` found, each with its place in the chunk.
    func withParts(
        of chunk: DiskChunk, _ body: (Span<UInt8>, Int) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let parts = unsafe parts
        try withBytes(of: chunk) { (bytes) throws(QCOW2Error) in
            for part in parts { try body(bytes.extracting(part), part.lowerBound) }
        }
    }

    /// Lends the bytes of a chunk that was read; none for zeros.
    func withBytes(
        of chunk: DiskChunk, _ body: (Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let bytes = unsafe bytes
        try body(bytes.span.extracting(0..<(chunk.isZero ? 0 : Int(chunk.byteCount))))
    }
}

extension DiskView {
    /// Reads the whole disk from its start to its end, while other threads read and decompress ahead.
    ///
    /// What reads as zeros isn't read, where the image or the file system knows that.
    ///
    /// - Parameters:
    ///   - threadCount: How many threads to use besides this one; by default one for each processor.
    ///   - progress: Called after each part; when it returns false, the reading stops.
    ///   - body: Called on this thread with each range and its bytes, at most 1 MiB; with no bytes, for a range of at
    ///     most 256 MiB, when all of it is zeros.
    /// - Throws: What ``read(into:at:)`` and `body` throw; ``QCOW2Error/Code/cancelled``.
    public func readAll(
        threadCount: Int? = nil, progress: (@Sendable (Progress) -> Bool)? = nil,
        _ body: (_ range: Range<GuestOffset>, _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let threadCount = threadCount ?? Threads.processorCount
        let source = ChunkSource(self)
        let buffers = (0..<(2 * max(1, threadCount))).map { _ in ChunkBuffer(byteCount: 1 << 20) }
        var meter = WorkMeter(progress)
        meter.expect(virtualSize)
        try ChunkPipeline(source, buffers).run(threadCount: threadCount) { (chunk, buffer) throws(QCOW2Error) in
            try buffer.fill(chunk, from: self)
        } finish: { (chunk, buffer) throws(QCOW2Error) in
            for part in chunk.zeroParts {
                try buffer.withBytes(of: chunk) { (bytes) throws(QCOW2Error) in
                    try body(GuestOffset(part.start)..<GuestOffset(part.end), bytes)
                }
                try meter.advance(by: part.byteCount)
            }
        }
    }
}

extension Span<UInt8> {
    /// The bytes of a block that is looked at for zeros: what file systems allocate at once.
    static var zeroBlockByteCount: Int { 4096 }

    /// Calls `body` with the parts that hold other bytes than zeros, in blocks; neighbouring blocks at once.
    func forEachNonZeroPart(_ body: (Range<Int>) throws(QCOW2Error) -> Void) throws(QCOW2Error) {
        var start: Int?
        for block in stride(from: 0, to: count, by: Self.zeroBlockByteCount) {
            if isZero(in: block..<Swift.min(block + Self.zeroBlockByteCount, count)) {
                if let first = start { try body(first..<block) }
                start = nil
            } else if start == nil {
                start = block
            }
        }
        if let first = start { try body(first..<count) }
    }
}
