// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A range of a disk that is stored alike.
public struct Extent: Hashable, Sendable {
    /// How a range is stored.
    public enum Kind: String, Hashable, Sendable {
        /// As it is, in a file.
        case data
        /// In a file, compressed.
        case compressed
        /// Nowhere: a file says that it reads as zeros.
        case zero
        /// In no file of the chain: it reads as zeros.
        case unallocated
        /// In a backing file that isn't open: reading it is an error.
        case unopened
    }

    /// The first byte.
    public var start: GuestOffset
    /// How many bytes; never zero.
    public var byteCount: UInt64
    public var kind: Kind
    /// Which file says so: 0 for the image, 1 for its backing file, and so on.
    ///
    /// For `unallocated` the deepest file whose disk reaches this far, for `unopened` the last one that is open.
    public var depth: Int
    /// Where in that file the range starts; all of it follows.
    ///
    /// `nil` for compressed data, which has another length there, and for ranges without host clusters.
    public var hostOffset: HostOffset?

    /// The first byte behind the extent.
    public var end: GuestOffset { GuestOffset(start.rawValue + byteCount) }

    /// Takes in the extent that follows, if it goes on alike.
    mutating func merge(_ next: Extent) -> Bool {
        guard next.kind == kind, next.depth == depth, next.start == end else { return false }
        switch (hostOffset, next.hostOffset) {
        case (nil, nil): break
        case (let offset?, let nextOffset?):
            guard offset.rawValue + byteCount == nextOffset.rawValue else { return false }
        default: return false
        }
        byteCount += next.byteCount
        return true
    }
}

/// Walks over a range of a disk, down the chain where a file doesn't hold a part of it.
struct ChainWalk: Sendable {
    private let view: DiskView
    /// A cursor for the image, and one for each file below, as deep as the walk has gone down.
    private var cursors: [LayerCursor] = []

    init(_ view: DiskView, in guest: Range<UInt64>) {
        self.view = view
        if let layer = view.layers.first { cursors = [LayerCursor(layer, in: guest)] }
    }

    /// The next segment, and which file it is from; unallocated ones are in none.
    ///
    /// After an error the walk is at its end.
    mutating func next() throws(QCOW2Error) -> (segment: Segment, depth: Int)? {
        while let last = cursors.indices.last {
            let segment: Segment?
            do throws(QCOW2Error) {
                segment = try cursors[last].next()
            } catch {
                cursors = []
                throw error
            }
            guard let segment else {
                cursors.removeLast()
                continue
            }
            if segment.mapping == .unallocated, cursors.count < view.layers.count {
                cursors.append(LayerCursor(view.layers[cursors.count], in: segment.start..<segment.end))
                continue
            }
            return (segment, last)
        }
        return nil
    }
}

/// Hands out the extents of a range one after the other.
public struct ExtentCursor: Sendable {
    private var walk: ChainWalk
    private let isClosedBelow: Bool
    private var pending: Extent?
    /// What went wrong behind the extents that were handed out.
    private var failure: QCOW2Error?

    init(_ view: DiskView, in guest: Range<UInt64>) {
        walk = ChainWalk(view, in: guest)
        isClosedBelow = view.closed != nil
    }

    /// The next extent, with neighbours that are alike merged; `nil` at the end of the range.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` or ``QCOW2Error/Code/inputOutput``, once all extents ahead of the fault
    ///   have been handed out; the cursor is then at its end.
    public mutating func next() throws(QCOW2Error) -> Extent? {
        guard var result = pending ?? piece() else {
            guard let failure else { return nil }
            self.failure = nil
            throw failure
        }
        pending = nil
        while let following = piece() {
            guard result.merge(following) else {
                pending = following
                break
            }
        }
        return result
    }

    /// The next part of an extent; `nil` at the end, or at a fault, which is kept.
    private mutating func piece() -> Extent? {
        do throws(QCOW2Error) {
            return try walk.next().map { Extent($0.segment, depth: $0.depth, isClosedBelow: isClosedBelow) }
        } catch {
            failure = error
            return nil
        }
    }
}

extension Extent {
    fileprivate init(_ segment: Segment, depth: Int, isClosedBelow: Bool) {
        start = GuestOffset(segment.start)
        byteCount = segment.byteCount
        self.depth = depth
        hostOffset = nil
        switch segment.mapping {
        case .unallocated: kind = isClosedBelow ? .unopened : .unallocated
        case .zero(let offset):
            kind = .zero
            hostOffset = offset
        case .data(let offset):
            kind = .data
            hostOffset = offset
        case .compressed: kind = .compressed
        case .pastEnd:
            // The overlay is the one that says so.
            kind = .unallocated
            self.depth = depth - 1
        }
    }
}

extension DiskView {
    /// The extents of a range, or of the whole disk; what lies outside the disk is left out.
    ///
    /// Reads L2 tables as it goes, and no data.
    public func extents(in range: Range<GuestOffset>? = nil) -> ExtentCursor {
        let range = range ?? GuestOffset(0)..<GuestOffset(virtualSize)
        let start = min(range.lowerBound.rawValue, virtualSize)
        return ExtentCursor(self, in: start..<max(start, min(range.upperBound.rawValue, virtualSize)))
    }

    /// Calls `body` with the extents of a range, or of the whole disk, in their order.
    ///
    /// - Throws: What ``ExtentCursor/next()`` and `body` throw.
    public func forEachExtent(
        in range: Range<GuestOffset>? = nil, _ body: (Extent) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var cursor = extents(in: range)
        while let extent = try cursor.next() { try body(extent) }
    }
}
