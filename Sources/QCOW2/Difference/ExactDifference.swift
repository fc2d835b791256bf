// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Compares the data of two states where their metadata differs.
struct ExactDifference {
    /// The earlier state; zeros without one.
    private let old: DiskView?
    private let new: DiskView
    private var oldBytes: [UInt8]
    private var newBytes: [UInt8]

    /// Bytes that are read at a time.
    private static let pieceByteCount = 1 << 20

    init(from old: DiskView?, to new: DiskView) {
        self.old = old
        self.new = new
        oldBytes = [UInt8](repeating: 0, count: Self.pieceByteCount)
        newBytes = oldBytes
    }

    /// Hands on those sectors of an extent in which a byte differs.
    ///
    /// What only one of the disks has is handed on as it is.
    mutating func compare(_ extent: ChangedExtent, _ sink: inout ChangedExtentSink) throws(QCOW2Error) {
        let common = min(old?.virtualSize ?? new.virtualSize, new.virtualSize)
        var position = extent.start.rawValue
        while position < min(extent.end.rawValue, common) {
            let end = min(extent.end.rawValue, common, position &+ UInt64(Self.pieceByteCount))
            try compare(position..<end, extent.kind, &sink)
            position = end
        }
        try sink.add(position..<max(position, extent.end.rawValue), extent.kind)
    }

    private mutating func compare(
        _ range: Range<UInt64>, _ kind: ChangedExtent.Kind, _ sink: inout ChangedExtentSink
    ) throws(QCOW2Error) {
        let (count, start) = (range.count, GuestOffset(range.lowerBound))
        if let old {
            try oldBytes.withMutableSpan(of: 0..<count) { (bytes) throws(QCOW2Error) in
                try old.read(into: &bytes, at: start)
            }
        }
        let new = new
        try newBytes.withMutableSpan(of: 0..<count) { (bytes) throws(QCOW2Error) in
            try new.read(into: &bytes, at: start)
        }
        let (oldBytes, newBytes) = (oldBytes, newBytes)
        var position = 0
        while position < count {
            // Up to the next sector of the disk.
            let sector = Int(ImageGeometry.sectorSize)
            let end = min(count, position + sector - Int((range.lowerBound &+ UInt64(position)) % UInt64(sector)))
            if !Self.areEqual(oldBytes.span, newBytes.span, position..<end) {
                try sink.add((range.lowerBound &+ UInt64(position))..<(range.lowerBound &+ UInt64(end)), kind)
            }
            position = end
        }
    }

    private static func areEqual(_ left: Span<UInt8>, _ right: Span<UInt8>, _ range: Range<Int>) -> Bool {
        var difference: UInt64 = 0
        var position = range.lowerBound
        while position &+ 8 <= range.upperBound {
            difference |= (left.loadBigEndian(at: position) as UInt64) ^ right.loadBigEndian(at: position)
            position &+= 8
        }
        while position < range.upperBound {
            difference |= UInt64(left[position] ^ right[position])
            position &+= 1
        }
        return difference == 0
    }
}

extension ImageReader where S: ~Copyable {
    /// Finds the ranges of the disk that differ between two states, by comparing data where the metadata differs.
    ///
    /// As ``Image/diff(from:to:progress:_:)``, but without ranges that hold the same bytes: what is left is exact to a
    /// sector of 512 bytes. Reads the data of both states in the ranges that the metadata doesn't show to be the same,
    /// from the backing files, too.
    ///
    /// - Parameters:
    ///   - old: The earlier state; without one, the later is compared with a disk of its size that is all zeros.
    ///   - new: The later state.
    ///   - progress: Called between batches of work; when it returns false the comparison stops.
    ///   - body: Gets the extents in the order of the disk, neighbours of one kind joined.
    /// - Returns: Sizes and sums.
    /// - Throws: What ``Image/diff(from:to:progress:_:)`` and ``DiskView/read(into:at:)`` throw.
    @discardableResult
    public func exactDiff(
        from old: DiskState?, to new: DiskState = .active, progress: (@Sendable (Progress) -> Bool)? = nil,
        _ body: (ChangedExtent) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> DiskDifference {
        let newView = try view(of: new)
        let oldView = try old.map { (state) throws(QCOW2Error) in try view(of: state) }
        var comparison = ExactDifference(from: oldView, to: newView)
        return try withoutActuallyEscaping(body) { (body) throws(QCOW2Error) -> DiskDifference in
            var sink = ChangedExtentSink(
                DiskDifference(oldSize: oldView?.virtualSize ?? 0, newSize: newView.virtualSize), body)
            try image.diff(from: old, to: new, progress: progress) { (extent) throws(QCOW2Error) in
                try comparison.compare(extent, &sink)
                if let progress, !progress(Progress(completed: extent.end.rawValue, total: newView.virtualSize)) {
                    throw QCOW2Error(.cancelled, "The operation was cancelled; nothing changed.")
                }
            }
            try sink.finish()
            return sink.difference
        }
    }
}
