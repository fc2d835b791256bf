// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import TestTools

/// The worst files that an attack from outside found, by what they do.
enum WorstFiles {
    /// 16 KiB on the disk: clusters of 2 MiB, refcounts of one bit, and a refcount table of 8 MiB in a hole of which
    /// the first and the last entry are set, so that it describes 2^44 clusters.
    static func refcountTableInHole(clusterBits: Int = 21) throws -> SparseImage {
        let tableClusters = 1 << (23 - clusterBits)
        let block = tableClusters + 1
        let image = try SparseImage(
            clusterBits: clusterBits, refcountOrder: 0, diskSize: 1 << 20, l1: (block + 1, clusterBits == 21 ? 1 : 2),
            refcountTable: (1, tableClusters), byteCount: (block + 3) << clusterBits)
        try image.put(block << clusterBits, at: 1 << clusterBits)
        try image.put((block + 2) << clusterBits, at: (tableClusters + 1) << clusterBits - 8)
        let used = block + 3
        try image.put(
            (0..<(used + 7) / 8).map { UInt8(truncatingIfNeeded: (1 << min(8, used - 8 * $0)) - 1) },
            at: block << clusterBits)
        return image
    }

    /// A golden image, grown to a length: all that was added is a hole.
    static func grown(_ name: String, to byteCount: Int) throws -> SparseImage {
        try SparseImage(Fixtures.bytes(name), byteCount: byteCount)
    }

    /// 448 KiB on the disk: snapshots that each have an L1 table of 32 MiB in a hole.
    static func l1TablesInHoles(snapshotCount: Int = 400) throws -> SparseImage {
        let clusters = 16 + snapshotCount * 512
        let blocks = (clusters + 32767) / 32768
        let image = try SparseImage(
            clusterBits: 16, refcountOrder: 4, diskSize: 1 << 20, l1: (2, 1), refcountTable: (1, 1),
            byteCount: (clusters + blocks) << 16)
        for block in 0..<((clusters + blocks + 32767) / 32768) {
            try image.put((clusters + block) << 16, at: 1 << 16 + 8 * block)
            let count = min(32768, clusters + blocks - block * 32768)
            try image.put(
                [UInt8](unsafeUninitializedCapacity: 2 * count) { bytes, done in
                    for index in 0..<(2 * count) { bytes[index] = UInt8(index & 1) }
                    done = 2 * count
                }, at: (clusters + block) << 16)
        }
        // Clusters 3 to 15 hold the table; what it doesn't need is leaked.
        let l1s = (0..<snapshotCount).map { (offset: (16 + $0 * 512) << 16, count: 4_194_304) }
        try image.put(SparseImage.snapshotTable(l1s, diskSize: 1 << 20), at: 3 << 16)
        try image.put(snapshotCount, 4, at: 60)
        try image.put(3 << 16, at: 64)
        return image
    }

    /// Snapshots that all name one L1 table of 32 MiB in a hole, of which the disk needs one entry.
    static func sharedL1(snapshotCount: Int) throws -> SparseImage {
        let image = try SparseImage(
            clusterBits: 16, refcountOrder: 4, diskSize: 1 << 20, l1: (2, 1), refcountTable: (1, 1),
            byteCount: 1024 << 16)
        try image.put(1023 << 16, at: 1 << 16)
        let l1s = [(offset: Int, count: Int)](repeating: (512 << 16, 4_194_304), count: snapshotCount)
        try image.put(SparseImage.snapshotTable(l1s, diskSize: 1 << 20), at: 16 << 16)
        try image.put(snapshotCount, 4, at: 60)
        try image.put(16 << 16, at: 64)
        return image
    }

    /// Many snapshots, each with an L1 and an L2 table of its own; the L2 tables lie in descending order.
    static func descendingTables(snapshotCount: Int) throws -> SparseImage {
        // Clusters of 512: header, refcount table, then blocks, L1 tables, L2 tables, the snapshot table.
        let entries = SparseImage.snapshotTable(
            (0..<snapshotCount).map { ($0 << 9, 1) }, diskSize: 32768
        ).count
        let tail = (entries + 511) / 512
        var blocks = 0
        while blocks * 256 < 3 + 128 + blocks + 2 * snapshotCount + tail { blocks += 1 }
        let tableClusters = (blocks * 8 + 511) / 512
        let l1 = 2 + tableClusters + blocks
        let l2 = l1 + snapshotCount
        let table = l2 + snapshotCount
        let used = table + tail
        let image = try SparseImage(
            clusterBits: 9, refcountOrder: 4, diskSize: 32768, l1: (1 + tableClusters + blocks, 1),
            refcountTable: (1, tableClusters), byteCount: used << 9)
        let first = 1 + tableClusters
        try image.put((0..<blocks).flatMap { SparseImage.bytes((first + $0) << 9, 8) }, at: 512)
        try image.put((0..<used).flatMap { _ in [UInt8(0), 1] }, at: first << 9)
        var l1s = [UInt8](repeating: 0, count: snapshotCount << 9)
        for index in 0..<snapshotCount {
            l1s.replaceSubrange(
                index << 9..<(index << 9 + 8), with: SparseImage.bytes((l2 + snapshotCount - 1 - index) << 9, 8))
        }
        try image.put(l1s, at: l1 << 9)
        let list = (0..<snapshotCount).map { (offset: (l1 + $0) << 9, count: 1) }
        try image.put(SparseImage.snapshotTable(list, diskSize: 32768), at: table << 9)
        try image.put(snapshotCount, 4, at: 60)
        try image.put(table << 9, at: 64)
        return image
    }

    /// Bitmaps whose tables of 8 MiB each name a cluster of their own with every entry.
    static func bitmapTables(count: Int) throws -> SparseImage {
        // Clusters of 512: header, refcount table and block, L1 table, directory, the tables, then the data in a hole.
        let entryCount = 1 << 20
        let tableClusters = entryCount * 8 / 512
        let firstTable = 16
        let firstData = firstTable + count * tableClusters
        let image = try SparseImage(
            clusterBits: 9, refcountOrder: 4, diskSize: 1 << 20, l1: (3, 32), refcountTable: (1, 1),
            byteCount: (firstData + count * entryCount) << 9)
        try image.put(2 << 9, at: 1 << 9)
        // 32 bytes an entry of the directory, with names of one letter.
        var directory: [UInt8] = []
        for index in 0..<count {
            directory += SparseImage.bytes((firstTable + index * tableClusters) << 9, 8)
            directory += SparseImage.bytes(entryCount, 4) + SparseImage.bytes(0, 4) + [1, 9, 0, 1, 0, 0, 0, 0]
            directory += [UInt8(0x61 + index), 0, 0, 0, 0, 0, 0, 0]
        }
        try image.put(directory, at: 4 << 9)
        let record = SparseImage.bytes(0x2385_2875, 4) + SparseImage.bytes(24, 4) + SparseImage.bytes(count, 4)
        let place = SparseImage.bytes(0, 4) + SparseImage.bytes(directory.count, 8) + SparseImage.bytes(4 << 9, 8)
        try image.put(record + place, at: 104)
        try image.put(1, at: 88)
        for index in 0..<count {
            let entries = (0..<entryCount).map { UInt64((firstData + index * entryCount + $0) << 9).bigEndian }
            try image.put(entries.withUnsafeBytes { Array($0) }, at: (firstTable + index * tableClusters) << 9)
        }
        return image
    }

    /// A snapshot table of as many bytes as one may have, for snapshots with names that are far too long.
    static func longNames() throws -> SparseImage {
        let count = 65_000
        var table: [UInt8] = []
        table.reserveCapacity(64 << 20)
        let name = [UInt8](repeating: 0x78, count: 940)
        for index in 0..<count {
            let id = Array("\(index + 1)".utf8)
            table +=
                SparseImage.bytes(0, 12) + SparseImage.bytes(id.count, 2) + SparseImage.bytes(name.count + id.count, 2)
            table += SparseImage.bytes(0, 20) + SparseImage.bytes(16, 4) + SparseImage.bytes(0, 16)
            table += id + id + name
            table += [UInt8](repeating: 0, count: -table.count & 7)
        }
        let clusters = (table.count + 65535) >> 16
        let image = try SparseImage(
            clusterBits: 16, refcountOrder: 4, diskSize: 0, l1: (3, 1), refcountTable: (1, 1),
            byteCount: (4 + clusters) << 16)
        try image.put(2 << 16, at: 1 << 16)
        try image.put((0..<(4 + clusters)).flatMap { _ in [UInt8(0), 1] }, at: 2 << 16)
        try image.put(table, at: 4 << 16)
        try image.put(count, 4, at: 60)
        try image.put(4 << 16, at: 64)
        return image
    }
}
