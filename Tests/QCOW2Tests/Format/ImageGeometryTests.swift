// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// The tables of sections "2.1 Index arithmetic" and "3.1 Structure".
@Suite struct ImageGeometryTests {
    /// Cluster bits, L2 entries, bytes per L1 entry, and the same with extended L2 entries.
    static let mappings: [(Int, Int, UInt64, UInt64?)] = [
        (9, 64, 32 << 10, nil), (12, 512, 2 << 20, nil), (16, 8192, 512 << 20, 256 << 20),
        (21, 262_144, 512 << 30, 256 << 30),
    ]

    @Test("L2 tables and L1 entries span what the table says", arguments: mappings)
    func mapping(_ clusterBits: Int, _ l2EntryCount: Int, _ span: UInt64, _ extendedSpan: UInt64?) {
        let standard = ImageGeometry.of(clusterBits: clusterBits)
        #expect(standard.l2EntryCount == l2EntryCount && standard.l2EntryByteCount == 8)
        check(standard, span)
        guard let extendedSpan else { return }
        let extended = ImageGeometry.of(clusterBits: clusterBits, extended: true)
        #expect(extended.l2EntryCount == l2EntryCount / 2 && extended.l2EntryByteCount == 16)
        check(extended, extendedSpan)
    }

    private func check(_ geometry: ImageGeometry, _ span: UInt64) {
        #expect(geometry.l1EntryCount(forDiskSize: 0) == 0)
        #expect(geometry.l1EntryCount(forDiskSize: 1) == 1)
        #expect(geometry.l1EntryCount(forDiskSize: span) == 1)
        #expect(geometry.l1EntryCount(forDiskSize: span + 1) == 2)
        let last = geometry.indices(of: GuestOffset(span - 1))
        #expect(last.l1 == 0 && last.l2 == geometry.l2EntryCount - 1 && last.byte == geometry.clusterByteCount - 1)
        let next = geometry.indices(of: GuestOffset(span))
        #expect(next.l1 == 1 && next.l2 == 0 && next.byte == 0)
        // The largest numbers are no problem.
        #expect(geometry.l1EntryCount(forDiskSize: .max) == UInt64.max / span + 1)
        #expect(geometry.indices(of: GuestOffset(.max)).l1 == UInt64.max / span)
    }

    /// Cluster bits, refcount order, refcounts per block, file bytes per block.
    static let coverage: [(Int, Int, UInt64, UInt64)] = [
        (9, 4, 256, 128 << 10), (16, 4, 32768, 2 << 30), (16, 6, 8192, 512 << 20), (21, 4, 1_048_576, 2 << 40),
        (9, 0, 4096, 2 << 20), (9, 6, 64, 32 << 10),
    ]

    @Test("Refcount blocks cover what the table says", arguments: coverage)
    func refcounts(_ clusterBits: Int, _ order: Int, _ perBlock: UInt64, _ covered: UInt64) {
        let geometry = ImageGeometry.of(clusterBits: clusterBits, order: order)
        #expect(geometry.refcountsPerBlock == perBlock)
        #expect(geometry.refcountsPerBlock * geometry.clusterSize == covered)
    }

    static let maxima: [(Int, Int, UInt64)] = [
        (0, 1, 1), (1, 2, 3), (2, 4, 15), (3, 8, 255), (4, 16, 65535), (5, 32, 0xFFFF_FFFF), (6, 64, .max),
    ]

    @Test("A refcount of n bits counts to 2^n - 1", arguments: maxima)
    func maximum(_ order: Int, _ bits: Int, _ maximum: UInt64) {
        let geometry = ImageGeometry.of(order: order)
        #expect(geometry.refcountBits == bits && geometry.maximumRefcount == maximum)
    }

    @Test("Clusters are counted up, offsets aligned down", arguments: 9...21)
    func clusters(_ clusterBits: Int) {
        let geometry = ImageGeometry.of(clusterBits: clusterBits)
        let size = geometry.clusterSize
        #expect(size == 1 << UInt64(clusterBits) && geometry.clusterByteCount == Int(size))
        #expect([0, 1, size, size + 1].map(geometry.clusterCount(forBytes:)) == [0, 1, 1, 2])
        #expect(geometry.clusterCount(forBytes: .max) == UInt64.max / size + 1)
        #expect(geometry.isAligned(HostOffset(0)) && geometry.isAligned(HostOffset(3 * size)))
        #expect(!geometry.isAligned(HostOffset(size + 1)) && !geometry.isAligned(HostOffset(size / 2)))
        #expect(geometry.cluster(at: HostOffset(3 * size - 1)) == 2)
        #expect(geometry.offset(ofCluster: 3) == HostOffset(3 * size))
        #expect(geometry.run(at: HostOffset(size), byteCount: 0) == nil)
        #expect(geometry.run(at: HostOffset(size), byteCount: size + 1) == ClusterRun(first: 1, count: 2))
        #expect(geometry.tableEntriesPerCluster == size / 8)
    }
}
