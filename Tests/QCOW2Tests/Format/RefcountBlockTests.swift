// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "3.1 Structure": the refcount blocks.
@Suite struct RefcountBlockTests {
    /// The order, the first bytes of a block, and what they say.
    static let examples: [(Int, [UInt8], [UInt64])] = [
        (0, [0xFF, 0x07], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]),
        (1, [0b01_00_11_10], [2, 3, 0, 1]),
        (2, [0x11, 0x11, 0x44, 0x44, 0x11, 0x01, 0x01], [1, 1, 1, 1, 4, 4, 4, 4, 1, 1, 1, 0, 1]),
        (3, [0x01, 0x01, 0xFF], [1, 1, 255]),
        (4, [0x00, 0x01, 0x00, 0x01, 0x12, 0x34], [1, 1, 0x1234]),
        (5, [0x00, 0x00, 0x00, 0x01, 0x12, 0x34, 0x56, 0x78], [1, 0x1234_5678]),
        (6, [0, 0, 0, 0, 0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78, 0x9A, 0xBC, 0xDE, 0xF0], [1, 0x1234_5678_9ABC_DEF0]),
    ]

    @Test("Bytes and counts agree, both ways", arguments: examples)
    func example(_ order: Int, _ bytes: [UInt8], _ counts: [UInt64]) {
        #expect(decode(bytes, order, counts.count) == counts)
        #expect(encode(counts, order, byteCount: bytes.count) == bytes)
    }

    @Test("Every index holds the largest refcount, and touches no other", arguments: 0...6)
    func everyIndex(_ order: Int) {
        let geometry = ImageGeometry.of(order: order)
        let count = Int(geometry.refcountsPerBlock)
        #expect(count == 4096 >> order)
        let largest = geometry.maximumRefcount
        for index in stride(from: 0, to: count, by: max(1, count / 97)) + [count - 1] {
            var values = [UInt64](repeating: 0, count: count)
            values[index] = largest
            let bytes = encode(values, order, byteCount: 512)
            #expect(decode(bytes, order, count) == values)
            values = values.map { largest - $0 }
            #expect(encode(values, order, byteCount: 512) == bytes.map { ~$0 })
        }
    }

    @Test("A value that is too wide keeps its low bits", arguments: 0...5)
    func tooWide(_ order: Int) {
        let largest = ImageGeometry.of(order: order).maximumRefcount
        let bytes = encode([0, largest + 2, 0, 0, 0, 0, 0, 0], order, byteCount: 64)
        #expect(decode(bytes, order, 4) == [0, 1, 0, 0])
    }

    @Test("Encoding a part leaves the rest of the bytes as they are", arguments: 0...6)
    func part(_ order: Int) {
        var bytes = [UInt8](repeating: 0xFF, count: 128)
        var span = bytes.mutableSpan
        RefcountBlock.encode([UInt64](repeating: 0, count: 8), order: order, count: 8, into: &span)
        let written = 1 << order
        #expect(bytes.prefix(written).allSatisfy { $0 == 0 } && bytes.dropFirst(written).allSatisfy { $0 == 0xFF })
    }

    private func decode(_ bytes: [UInt8], _ order: Int, _ count: Int) -> [UInt64] {
        var values = [UInt64](repeating: 0, count: count)
        RefcountBlock.decode(bytes.span, order: order, count: count, into: &values)
        return values
    }

    private func encode(_ values: [UInt64], _ order: Int, byteCount: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var span = bytes.mutableSpan
        RefcountBlock.encode(values, order: order, count: values.count, into: &span)
        return bytes
    }
}
