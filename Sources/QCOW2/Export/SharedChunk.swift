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
    /// The most states that are read in step.
    static let maximumViewCount = 96
    /// About how many bytes of data all threads together hold.
    static let budget = 48 << 20

    /// The most bytes of a chunk, of which there is one for each state in the worst case.
    static func chunkByteCount(viewCount: Int) -> Int {
        max(1 << 16, min(1 << 20, (6 << 20) / max(1, viewCount)) & ~((1 << 16) - 1))
    }

    private let views: [DiskView]
    private var sources: [ChunkSource]
    private var chunks: [DiskChunk?]
    private var position: UInt64 = 0

    init(_ views: [DiskView], maximumByteCount: Int) {
        self.views = views
        sources = views.map { ChunkSource($0, maximumByteCount: UInt64(maximumByteCount)) }
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
    private let byteCount: Int

    init(byteCount: Int) { self.byteCount = byteCount }

    func fill(_ chunk: SharedChunk, from views: [DiskView]) throws(QCOW2Error) {
        while unsafe buffers.count < chunk.groups.count { unsafe buffers.append(ChunkBuffer(byteCount: byteCount)) }
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
    /// What states share is read once; states with the same tables count as one. The states may have different sizes;
    /// each takes part up to its own. More than 96 that differ are read in several passes, so that memory is bounded:
    /// about 64 MiB, however many there are.
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
        let alike = groups(views)
        var meter = WorkMeter(progress)
        let passes = stride(from: 0, to: alike.count, by: SharedChunkSource.maximumViewCount).map {
            Array(alike[$0..<min(alike.count, $0 + SharedChunkSource.maximumViewCount)])
        }
        meter.expect(
            passes.reduce(0) { sum, pass in
                let (total, overflow) = sum.addingReportingOverflow(pass.map { views[$0[0]].virtualSize }.max() ?? 0)
                return overflow ? .max : total
            })
        for pass in passes { try readAll(pass, of: views, threadCount, &meter, body) }
    }

    /// Reads some groups of views that are alike, all groups in step.
    private static func readAll(
        _ alike: [[Int]], of all: [DiskView], _ threadCount: Int?, _ meter: inout WorkMeter,
        _ body: (_ range: Range<GuestOffset>, _ indices: [Int], _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let views = alike.map { all[$0[0]] }
        let byteCount = SharedChunkSource.chunkByteCount(viewCount: views.count)
        let most = max(1, SharedChunkSource.budget / (2 * byteCount * views.count))
        let threadCount = min(most, threadCount ?? Threads.processorCount)
        let places = (0..<(2 * max(1, threadCount))).map { _ in SharedBuffer(byteCount: byteCount) }
        let source = SharedChunkSource(views, maximumByteCount: byteCount)
        func indices(_ states: [Int]) -> [Int] { states.flatMap { alike[$0] } }
        try ChunkPipeline(source, places).run(threadCount: threadCount) {
            (chunk, place) throws(QCOW2Error) in
            try place.fill(chunk, from: views)
        } finish: { (chunk, place) throws(QCOW2Error) in
            let range = GuestOffset(chunk.start)..<GuestOffset(chunk.start + chunk.byteCount)
            if !chunk.zeros.isEmpty {
                let zeroIndices = indices(chunk.zeros)
                let zeros = DiskChunk(start: chunk.start, byteCount: chunk.byteCount, isZero: true)
                for part in zeros.zeroParts {
                    try body(GuestOffset(part.start)..<GuestOffset(part.end), zeroIndices, [UInt8]().span)
                    if chunk.groups.isEmpty { try meter.advance(by: part.byteCount) }
                }
            }
            guard !chunk.groups.isEmpty else { return }
            let part = DiskChunk(start: chunk.start, byteCount: chunk.byteCount, isZero: false)
            for (group, states) in chunk.groups.enumerated() {
                try unsafe place.buffers[group].withBytes(of: part) { (bytes) throws(QCOW2Error) in
                    try body(range, indices(states), bytes)
                }
            }
            try meter.advance(by: chunk.byteCount)
        }
    }
}

extension DiskView {
    /// Groups views of one reader by their tables, as indices: the disks of a group are the same without a look.
    ///
    /// Costs O(views), and reads nothing. Groups are in the order of their first views.
    public static func groups(_ views: [DiskView]) -> [[Int]] {
        var first: [StateTree: Int] = [:]
        var groups: [[Int]] = []
        for (index, view) in views.enumerated() {
            if let tree = view.tree, let group = first[tree] {
                groups[group].append(index)
            } else {
                if let tree = view.tree { first[tree] = groups.count }
                groups.append([index])
            }
        }
        return groups
    }

    /// What the view's tables are, if it is one of a qcow2 image.
    fileprivate var tree: StateTree? {
        layers.first?.image.map {
            StateTree(
                l1TableOffset: $0.map.l1TableOffset, l1EntryCount: UInt32(clamping: $0.map.indices.upperBound),
                virtualSize: virtualSize, vmStateSize: 0)
        }
    }
}
