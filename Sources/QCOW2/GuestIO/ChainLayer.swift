// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An open file that any number of threads may read.
protocol ReadableFile: AnyObject, Sendable {
    var name: String { get }
    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error)
    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>?
}

/// One file of a backing chain, as a disk.
struct ChainLayer: Sendable {
    let file: any ReadableFile
    /// Bytes of the disk.
    let byteCount: UInt64
    /// The qcow2 image in the file; `nil` when the file is the disk.
    let image: ImageLayer?

    /// Fills `buffer`; reads what this file doesn't hold from below, and zeros from behind the disk's end.
    func read(into buffer: inout MutableSpan<UInt8>, at start: UInt64, below: LowerRead) throws(QCOW2Error) {
        let count = Int(min(UInt64(buffer.count), byteCount - min(start, byteCount)))
        if count < buffer.count {
            var rest = buffer._mutatingExtracting(count...)
            rest.update(repeating: 0)
        }
        guard count > 0 else { return }
        var part = buffer._mutatingExtracting(..<count)
        let read: FileRead = { (bytes, offset) throws(QCOW2Error) in try file.read(into: &bytes, at: offset) }
        if let image {
            try image.read(into: &part, at: start, read, below: below)
        } else {
            try read(&part, HostOffset(start))
        }
    }
}

/// Walks over a range of one layer's disk.
struct LayerCursor {
    private let layer: ChainLayer
    private var cursor: SegmentCursor?
    private var position: UInt64
    /// The end of what is in the layer's disk, and of the range.
    private let diskEnd: UInt64
    private let end: UInt64

    init(_ layer: ChainLayer, in guest: Range<UInt64>) {
        self.layer = layer
        position = guest.lowerBound
        end = guest.upperBound
        diskEnd = max(position, min(end, layer.byteCount))
        cursor = layer.image.map { SegmentCursor($0.map, in: guest.lowerBound..<diskEnd) }
    }

    mutating func next() throws(QCOW2Error) -> Segment? {
        guard position < end else { return nil }
        guard position < diskEnd else {
            defer { position = end }
            return Segment(start: position, byteCount: end - position, mapping: .pastEnd)
        }
        guard let slices = layer.image?.slices else {
            let start = position
            let data = try layer.file.dataRange(in: start..<diskEnd) ?? diskEnd..<diskEnd
            let isHole = data.lowerBound > start
            position = isHole ? data.lowerBound : data.upperBound
            return Segment(
                start: start, byteCount: position - start,
                mapping: isHole ? .zero(HostOffset(start)) : .data(HostOffset(start)))
        }
        let file = layer.file
        let segment = try cursor?.next { (offset, byteCount) throws(QCOW2Error) in
            try slices.slice(at: offset, byteCount) { (bytes, offset) throws(QCOW2Error) in
                try file.read(into: &bytes, at: offset)
            }
        }
        if let segment { position = segment.end }
        return segment
    }
}
