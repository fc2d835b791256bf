// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The bytes of refcount blocks: turns many refcounts at once into numbers and back.
///
/// Section "3.1 Structure".
///
/// Widths below a byte keep the lowest index in the lowest bits; widths above one are big-endian.
enum RefcountBlock {
    /// Decodes the first `count` refcounts of `1 << order` bits.
    static func decode(_ bytes: Span<UInt8>, order: Int, count: Int, into values: inout [UInt64]) {
        switch order {
        case 3: for index in 0..<count { values[index] = UInt64(bytes[index]) }
        case 4:
            for index in 0..<count { values[index] = UInt64(bytes.loadBigEndian(at: index &* 2, as: UInt16.self)) }
        case 5:
            for index in 0..<count { values[index] = UInt64(bytes.loadBigEndian(at: index &* 4, as: UInt32.self)) }
        case 6: for index in 0..<count { values[index] = bytes.loadBigEndian(at: index &* 8, as: UInt64.self) }
        default:
            let mask = narrowMask(order)
            for index in 0..<count {
                let byte = bytes[(index << order) >> 3]
                values[index] = UInt64(byte >> UInt8(truncatingIfNeeded: (index << order) & 7) & mask)
            }
        }
    }

    /// Encodes the first `count` numbers, which must fit into `1 << order` bits.
    static func encode(_ values: [UInt64], order: Int, count: Int, into bytes: inout MutableSpan<UInt8>) {
        switch order {
        case 3: for index in 0..<count { bytes[index] = UInt8(truncatingIfNeeded: values[index]) }
        case 4:
            for index in 0..<count {
                bytes.storeBigEndian(UInt16(truncatingIfNeeded: values[index]), at: index &* 2)
            }
        case 5:
            for index in 0..<count {
                bytes.storeBigEndian(UInt32(truncatingIfNeeded: values[index]), at: index &* 4)
            }
        case 6: for index in 0..<count { bytes.storeBigEndian(values[index], at: index &* 8) }
        default:
            let mask = narrowMask(order)
            for index in 0..<count {
                let byte = (index << order) >> 3
                let shift = UInt8(truncatingIfNeeded: (index << order) & 7)
                bytes[byte] =
                    bytes[byte] & ~(mask << shift) | (UInt8(truncatingIfNeeded: values[index]) & mask) << shift
            }
        }
    }

    /// The refcount at an index, of `1 << order` bits.
    static func refcount(at index: Int, order: Int, in bytes: Span<UInt8>) -> UInt64 {
        switch order {
        case 3: UInt64(bytes[index])
        case 4: UInt64(bytes.loadBigEndian(at: index &* 2, as: UInt16.self))
        case 5: UInt64(bytes.loadBigEndian(at: index &* 4, as: UInt32.self))
        case 6: bytes.loadBigEndian(at: index &* 8, as: UInt64.self)
        default:
            UInt64(bytes[(index << order) >> 3] >> UInt8(truncatingIfNeeded: (index << order) & 7) & narrowMask(order))
        }
    }

    /// Changes the refcount at an index to a number that must fit into `1 << order` bits.
    static func store(_ refcount: UInt64, at index: Int, order: Int, in bytes: inout MutableSpan<UInt8>) {
        switch order {
        case 3: bytes[index] = UInt8(truncatingIfNeeded: refcount)
        case 4: bytes.storeBigEndian(UInt16(truncatingIfNeeded: refcount), at: index &* 2)
        case 5: bytes.storeBigEndian(UInt32(truncatingIfNeeded: refcount), at: index &* 4)
        case 6: bytes.storeBigEndian(refcount, at: index &* 8)
        default:
            let (byte, mask) = ((index << order) >> 3, narrowMask(order))
            let shift = UInt8(truncatingIfNeeded: (index << order) & 7)
            bytes[byte] = bytes[byte] & ~(mask << shift) | (UInt8(truncatingIfNeeded: refcount) & mask) << shift
        }
    }

    private static func narrowMask(_ order: Int) -> UInt8 { (1 << (1 << UInt8(order))) - 1 }
}
