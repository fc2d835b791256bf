// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "2.5 Compressed cluster descriptor".
@Suite struct CompressedClusterTests {
    private static let bits: UInt64 = (1 << 62) - 1

    struct Example: Sendable {
        let clusterBits: Int
        let rawValue: UInt64
        let offset: UInt64
        let sectorCount: UInt64
        let byteCount: UInt64
        let clusters: ClosedRange<UInt64>
    }

    static let examples = [
        Example(
            clusterBits: 9, rawValue: 0x6000_0000_0000_0BED, offset: 0xBED, sectorCount: 2, byteCount: 531,
            clusters: 5...6),
        Example(
            clusterBits: 16, rawValue: 0x4E40_0000_0005_E173, offset: 0x5E173, sectorCount: 58, byteCount: 29325,
            clusters: 5...6),
        Example(
            clusterBits: 21, rawValue: 0x4E02_0000_00D8_00F6, offset: 0xD8_00F6, sectorCount: 1794,
            byteCount: 1794 * 512 - 0xF6, clusters: 6...7),
    ]

    @Test("The worked examples decode", arguments: examples)
    func example(_ example: Example) {
        let geometry = ImageGeometry.of(clusterBits: example.clusterBits)
        let cluster = CompressedCluster(descriptor: example.rawValue & Self.bits, in: geometry)
        #expect(cluster.offset == HostOffset(example.offset))
        #expect(cluster.sectorCount == example.sectorCount)
        #expect(cluster.byteCount == example.byteCount)
        #expect(cluster.end == example.offset + example.byteCount)
        let run = cluster.run(in: geometry)
        #expect(run.first == example.clusters.lowerBound && run.end == example.clusters.upperBound + 1)
    }

    /// Cluster bits; bits of the offset; the largest number of sectors.
    static let table: [(Int, UInt64, UInt64)] = [
        (9, 61, 2), (10, 60, 4), (11, 59, 8), (12, 58, 16), (13, 57, 32), (14, 56, 64), (15, 55, 128), (16, 54, 256),
        (17, 53, 512), (18, 52, 1024), (19, 51, 2048), (20, 50, 4096), (21, 49, 8192),
    ]

    @Test("Offset and sector count split where the table says", arguments: table)
    func split(_ clusterBits: Int, _ offsetBits: UInt64, _ maximumSectorCount: UInt64) {
        let geometry = ImageGeometry.of(clusterBits: clusterBits)
        let offsets = CompressedCluster(descriptor: (1 << offsetBits) - 1, in: geometry)
        #expect(offsets.offset == HostOffset((1 << offsetBits) - 1) && offsets.sectorCount == 1)
        let counts = CompressedCluster(descriptor: Self.bits & ~((1 << offsetBits) - 1), in: geometry)
        #expect(counts.offset == HostOffset(0) && counts.sectorCount == maximumSectorCount)
        #expect(counts.byteCount == 2 * geometry.clusterSize)
        // All bits set: the sums don't overflow.
        let all = CompressedCluster(descriptor: Self.bits, in: geometry)
        #expect(all.end == (1 << offsetBits) - 512 + maximumSectorCount * 512)
        #expect(all.byteCount == maximumSectorCount * 512 - 511)
        #expect((2...3).contains(all.run(in: geometry).count))
    }

    @Test("Offset bits from 56 on must be zero", arguments: table)
    func limit(_ clusterBits: Int, _ offsetBits: UInt64, _ maximumSectorCount: UInt64) {
        let geometry = ImageGeometry.of(clusterBits: clusterBits)
        let largest = UInt64(1) << min(offsetBits, 56) - 1
        #expect(L2Entry(rawValue: 1 << 62 | largest).defect(in: geometry) == nil)
        for bit in 56..<max(56, offsetBits) {
            #expect(L2Entry(rawValue: 1 << 62 | 1 << bit).defect(in: geometry) != nil)
        }
        // The bits of the count are not meant.
        let counts = Self.bits & ~((1 << offsetBits) - 1)
        #expect(L2Entry(rawValue: 1 << 62 | counts).defect(in: geometry) == nil)
    }

    @Test("A piece inside one sector counts one cluster; across a border, two")
    func run() {
        let geometry = ImageGeometry.of()
        #expect(CompressedCluster(descriptor: 0x3FF, in: geometry).run(in: geometry) == ClusterRun(first: 1, count: 1))
        let two = CompressedCluster(descriptor: 1 << 61 | 0x3FF, in: geometry)
        #expect(two.run(in: geometry) == ClusterRun(first: 1, count: 2) && two.byteCount == 513)
    }
}
