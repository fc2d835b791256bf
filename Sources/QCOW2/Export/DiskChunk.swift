// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A range of a disk, worth one read; or a range of any length that reads as zeros.
struct DiskChunk: Hashable, Sendable {
    var start: UInt64
    var byteCount: UInt64
    var isZero: Bool

    var end: UInt64 { start + byteCount }

    /// The chunk, or its parts if it is a long range of zeros: whoever writes those or hashes them takes a while, and
    /// says in between how far it is.
    var zeroParts: some Sequence<DiskChunk> {
        let most: UInt64 = isZero ? 256 << 20 : .max
        return sequence(state: self) { (rest: inout DiskChunk) -> DiskChunk? in
            guard rest.byteCount > 0 else { return nil }
            let part = DiskChunk(start: rest.start, byteCount: min(rest.byteCount, most), isZero: rest.isZero)
            rest.start += part.byteCount
            rest.byteCount -= part.byteCount
            return part
        }
    }
}

/// Cuts a disk into chunks, from its start to its end, without reading any data.
///
/// Chunks start and end at multiples of the alignment, and at the disk's end. A chunk that isn't zero has at most
/// `maximumByteCount` bytes.
struct ChunkSource: WorkSource, Sendable {
    private let view: DiskView
    private let alignment: UInt64
    private let maximumByteCount: UInt64
    private var position: UInt64 = 0
    private var cursor: ExtentCursor
    /// What is left of the extent found last, if it holds data.
    private var extent: Extent?
    /// A range that may hold other bytes than zeros, ahead of which nothing does.
    private var data: Range<UInt64> = 0..<0
    /// Data behind any disk, for when there is none.
    private static let none = UInt64.max - 1..<UInt64.max

    /// The alignment is a power of two, and the maximum a multiple of it.
    init(_ view: DiskView, alignment: UInt64 = 1 << 16, maximumByteCount: UInt64 = 1 << 20) {
        self.view = view
        self.alignment = alignment
        self.maximumByteCount = maximumByteCount
        cursor = view.extents()
    }

    mutating func next() throws(QCOW2Error) -> DiskChunk? {
        let size = view.virtualSize
        guard position < size else { return nil }
        while data.upperBound <= position { data = try nextData() ?? Self.none }
        let start = position
        let dataStart = min(size, max(start, data.lowerBound & ~(alignment - 1)))
        if dataStart > start {
            position = dataStart
            return DiskChunk(start: start, byteCount: dataStart - start, isZero: true)
        }
        // Safe: the disk has less than 2^63 bytes.
        let limit = min(size, start + maximumByteCount)
        position = min(limit, roundedUp(data.upperBound))
        while position < limit {
            data = try nextData() ?? Self.none
            guard data.lowerBound <= position else { break }
            position = max(position, min(limit, roundedUp(data.upperBound)))
        }
        return DiskChunk(start: start, byteCount: position - start, isZero: false)
    }

    private func roundedUp(_ offset: UInt64) -> UInt64 {
        offset >= view.virtualSize ? view.virtualSize : (offset + alignment - 1) & ~(alignment - 1)
    }

    /// The next range that may hold other bytes than zeros.
    private mutating func nextData() throws(QCOW2Error) -> Range<UInt64>? {
        while true {
            var next = self.extent
            self.extent = nil
            if next == nil { next = try cursor.next() }
            guard let extent = next else { return nil }
            switch extent.kind {
            case .zero, .unallocated: continue
            case .compressed, .unopened: return extent.start.rawValue..<extent.end.rawValue
            case .data:
                // Clusters that were only set aside are often holes in the file.
                guard let host = extent.hostOffset?.rawValue, extent.byteCount >= alignment else {
                    return extent.start.rawValue..<extent.end.rawValue
                }
                let file = view.layers[extent.depth].file
                guard let found = try file.dataRange(in: host..<(host + extent.byteCount)) else { continue }
                let start = extent.start.rawValue + (found.lowerBound - host)
                let end = start + UInt64(found.count)
                if end < extent.end.rawValue {
                    var rest = extent
                    rest.start = GuestOffset(end)
                    rest.byteCount = extent.end.rawValue - end
                    rest.hostOffset = HostOffset(found.upperBound)
                    self.extent = rest
                }
                return start..<end
            }
        }
    }
}
