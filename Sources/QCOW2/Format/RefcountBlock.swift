// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The refcounts of neighbouring clusters, exactly as they are on disk.
///
/// Section "3.1 Structure".
///
/// Widths below a byte keep the lowest index in the lowest bits; widths above one are big-endian.
struct RefcountBlock: Hashable, Sendable {
    private(set) var bytes: [UInt8]
    private let order: Int

    /// A block in which every cluster is free.
    init(freeIn geometry: ImageGeometry) {
        self.init(bytes: [UInt8](repeating: 0, count: geometry.clusterByteCount), order: geometry.refcountOrder)
    }

    /// A block of refcounts of `1 << order` bits.
    init(bytes: [UInt8], order: Int) {
        self.bytes = bytes
        self.order = order
    }

    /// How many refcounts the block holds.
    var count: Int { (bytes.count * 8) >> order }

    /// The refcount at `index`.
    ///
    /// Storing a value that is wider than the field keeps its low bits: check the maximum first.
    subscript(index: Int) -> UInt64 {
        get {
            switch order {
            case 3: UInt64(bytes[index])
            case 4: UInt64(bytes.span.loadBigEndian(at: index * 2, as: UInt16.self))
            case 5: UInt64(bytes.span.loadBigEndian(at: index * 4, as: UInt32.self))
            case 6: bytes.span.loadBigEndian(at: index * 8, as: UInt64.self)
            default: UInt64(bytes[(index << order) >> 3] >> shift(of: index) & mask)
            }
        }
        set {
            switch order {
            case 3: bytes[index] = UInt8(truncatingIfNeeded: newValue)
            case 4: store(UInt16(truncatingIfNeeded: newValue), at: index * 2)
            case 5: store(UInt32(truncatingIfNeeded: newValue), at: index * 4)
            case 6: store(newValue, at: index * 8)
            default:
                let byte = (index << order) >> 3
                let value = (UInt8(truncatingIfNeeded: newValue) & mask) << shift(of: index)
                bytes[byte] = bytes[byte] & ~(mask << shift(of: index)) | value
            }
        }
    }

    /// Whether all refcounts are zero.
    var isFree: Bool { bytes.allSatisfy { $0 == 0 } }

    private var mask: UInt8 { (1 << (1 << UInt8(order))) - 1 }

    private func shift(of index: Int) -> UInt8 { UInt8(truncatingIfNeeded: (index << order) & 7) }

    private mutating func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        var span = bytes.mutableSpan
        span.storeBigEndian(value, at: offset)
    }
}
