// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A range of several states of a disk, and which of them hold the same bytes there.
struct SharedChunk: Sendable {
    let start: UInt64
    let byteCount: UInt64
    /// The states, by index, that read as zeros.
    var zeros: [Int] = []
    /// The others; those that share all clusters of the range are together.
    var groups: [[Int]] = []
}

/// Cuts several states of a disk into chunks, in step.
struct SharedChunkSource: WorkSource {
    private let views: [DiskView]
    private var sources: [ChunkSource]
    private var chunks: [DiskChunk?]
    private var position: UInt64 = 0

    init(_ views: [DiskView]) {
        self.views = views
        sources = views.map { ChunkSource($0) }
        chunks = views.map { _ in nil }
    }

    mutating func next() throws(QCOW2Error) -> SharedChunk? {
        var end = UInt64.max
        for index in views.indices where views[index].virtualSize > position {
            if (chunks[index]?.end ?? 0) <= position { chunks[index] = try sources[index].next() }
            end = min(end, chunks[index]?.end ?? .max)
        }
        guard end < .max else { return nil }
        var shared = SharedChunk(start: position, byteCount: end - position)
        var groups: [[Place]: Int] = [:]
        for index in views.indices where views[index].virtualSize > position {
            guard chunks[index]?.isZero == false else {
                shared.zeros.append(index)
                continue
            }
            let places = try places(of: views[index], position..<end)
            if let group = groups[places] {
                shared.groups[group].append(index)
            } else {
                groups[places] = shared.groups.count
                shared.groups.append([index])
            }
        }
        position = end
        return shared
    }

    /// Where a part of a range is stored.
    private struct Place: Hashable {
        let depth: Int
        let segment: Segment
    }

    private func places(of view: DiskView, _ range: Range<UInt64>) throws(QCOW2Error) -> [Place] {
        var places: [Place] = []
        var walk = ChainWalk(view, in: range)
        while let (segment, depth) = try walk.next() { places.append(Place(depth: depth, segment: segment)) }
        return places
    }
}

/// A range of several states on its way: the bytes of each group.
private final class SharedBuffer: Sendable {
    // SAFETY: the pipeline's monitor orders every use by one thread before that by the next.
    nonisolated(unsafe) var buffers: [ChunkBuffer] = []

    func fill(_ chunk: SharedChunk, from views: [DiskView]) throws(QCOW2Error) {
        while unsafe buffers.count < chunk.groups.count { unsafe buffers.append(ChunkBuffer(byteCount: 1 << 20)) }
        let part = DiskChunk(start: chunk.start, byteCount: chunk.byteCount, isZero: false)
        for (group, states) in chunk.groups.enumerated() {
            guard let first = states.first else { continue }
            try unsafe buffers[group].fill(part, from: views[first])
        }
    }
}

extension DiskView {
    /// Reads several states of one image's disk in step, from their starts to their ends.
    ///
    /// What states share is read once. The states may have different sizes; each takes part up to its own.
    ///
    /// - Parameters:
    ///   - views: Views made by one reader.
    ///   - threadCount: How many threads to use besides this one; by default one for each processor.
    ///   - progress: Called after each part; when it returns false, the reading stops.
    ///   - body: Called on this thread for each range with the indices of views that read alike there, and their bytes;
    ///     with no bytes, for a range of at most 256 MiB, when all of it is zeros.
    /// - Throws: What ``read(into:at:)`` and `body` throw; ``QCOW2Error/Code/cancelled``.
    public static func readAll(
        _ views: [DiskView], threadCount: Int? = nil, progress: (@Sendable (Progress) -> Bool)? = nil,
        _ body: (_ range: Range<GuestOffset>, _ indices: [Int], _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let threadCount = threadCount ?? Threads.processorCount
        let places = (0..<(2 * max(1, threadCount))).map { _ in SharedBuffer() }
        var meter = WorkMeter(progress)
        meter.expect(views.map(\.virtualSize).max() ?? 0)
        try ChunkPipeline(SharedChunkSource(views), places).run(threadCount: threadCount) {
            (chunk, place) throws(QCOW2Error) in
            try place.fill(chunk, from: views)
        } finish: { (chunk, place) throws(QCOW2Error) in
            let range = GuestOffset(chunk.start)..<GuestOffset(chunk.start + chunk.byteCount)
            if !chunk.zeros.isEmpty {
                let zeros = DiskChunk(start: chunk.start, byteCount: chunk.byteCount, isZero: true)
                for part in zeros.zeroParts {
                    try body(GuestOffset(part.start)..<GuestOffset(part.end), chunk.zeros, [UInt8]().span)
                    if chunk.groups.isEmpty { try meter.advance(by: part.byteCount) }
                }
            }
            guard !chunk.groups.isEmpty else { return }
            let part = DiskChunk(start: chunk.start, byteCount: chunk.byteCount, isZero: false)
            for (group, states) in chunk.groups.enumerated() {
                try unsafe place.buffers[group].withBytes(of: part) { (bytes) throws(QCOW2Error) in
                    try body(range, states, bytes)
                }
            }
            try meter.advance(by: chunk.byteCount)
        }
    }
}
