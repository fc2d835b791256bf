// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A range of the disk that may differ between two states.
public struct ChangedExtent: Hashable, Sendable {
    /// What the range is in the later state.
    public enum Kind: String, Hashable, Sendable {
        /// Data, compressed or not.
        case data
        /// Zeros.
        case zero
        /// What the backing file holds: the later state has given up what the earlier one had there.
        case backing
        /// Nothing: the later disk ends before it.
        case gone
    }

    /// The first byte.
    public var start: GuestOffset
    /// How many bytes; never zero.
    public var byteCount: UInt64
    public var kind: Kind

    /// The first byte behind the extent.
    public var end: GuestOffset { GuestOffset(start.rawValue &+ byteCount) }
}

/// What a comparison of two states found, in numbers.
public struct DiskDifference: Hashable, Sendable {
    /// Bytes of the earlier disk; zero when there was none.
    public var oldSize: UInt64
    /// Bytes of the later disk.
    public var newSize: UInt64
    /// Bytes in all extents that were handed out.
    public var changedByteCount: UInt64 = 0
    /// How many extents were handed out.
    public var extentCount: UInt64 = 0
}

/// Joins neighbouring extents of one kind before it hands them out.
struct ChangedExtentSink {
    private(set) var difference: DiskDifference
    private var pending: ChangedExtent?
    private let body: (ChangedExtent) throws(QCOW2Error) -> Void

    init(_ difference: DiskDifference, _ body: @escaping (ChangedExtent) throws(QCOW2Error) -> Void) {
        self.difference = difference
        self.body = body
    }

    /// Adds a range behind all earlier ones; an empty one adds nothing.
    mutating func add(_ range: Range<UInt64>, _ kind: ChangedExtent.Kind) throws(QCOW2Error) {
        guard !range.isEmpty else { return }
        let byteCount = range.upperBound &- range.lowerBound
        if let last = pending, last.kind == kind, last.end.rawValue == range.lowerBound {
            pending?.byteCount = last.byteCount &+ byteCount
            return
        }
        try finish()
        pending = ChangedExtent(start: GuestOffset(range.lowerBound), byteCount: byteCount, kind: kind)
    }

    /// Hands out what is left.
    mutating func finish() throws(QCOW2Error) {
        guard let extent = pending else { return }
        pending = nil
        difference.changedByteCount &+= extent.byteCount
        difference.extentCount &+= 1
        try body(extent)
    }
}
