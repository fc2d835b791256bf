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
        let block = RefcountBlock(bytes: bytes + [UInt8](repeating: 0, count: 512 - bytes.count), order: order)
        #expect(counts.indices.map { block[$0] } == counts)
        var written = RefcountBlock(freeIn: .of(order: order))
        #expect(written.isFree && written.bytes.count == 512)
        for (index, count) in counts.enumerated() { written[index] = count }
        #expect(written == block && !written.isFree)
    }

    @Test("Every index holds the largest refcount, and touches no other", arguments: 0...6)
    func everyIndex(_ order: Int) {
        let geometry = ImageGeometry.of(order: order)
        var block = RefcountBlock(freeIn: geometry)
        #expect(block.count == 4096 >> order && UInt64(block.count) == geometry.refcountsPerBlock)
        let largest = geometry.maximumRefcount
        for index in 0..<block.count {
            block[index] = largest
            #expect(block[index] == largest)
        }
        #expect(block.bytes.allSatisfy { $0 == 0xFF })
        for index in 0..<block.count {
            block[index] = 0
            let neighbours = [index - 1, index + 1].filter { (0..<block.count).contains($0) }
            #expect(block[index] == 0)
            #expect(neighbours.allSatisfy { block[$0] == ($0 < index ? 0 : largest) })
        }
        #expect(block.isFree)
    }

    @Test("A value that is too wide keeps its low bits", arguments: 0...5)
    func tooWide(_ order: Int) {
        let geometry = ImageGeometry.of(order: order)
        var block = RefcountBlock(freeIn: geometry)
        block[1] = geometry.maximumRefcount + 2
        #expect(block[0] == 0 && block[1] == 1 && block[2] == 0)
    }
}
