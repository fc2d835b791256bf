// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// What images are said to be used for, against counting every cluster of every tree in sets.
@Suite struct UsageTests {
    @Test("Usage is what counting cluster by cluster says", arguments: Specimen.all)
    func counted(_ specimen: Specimen) throws {
        let image = try Image(storage: InMemoryStorage(specimen.bytes, isWritable: false))
        let usage = try image.usage()
        #expect(UsageModel(usage) == UsageModel(specimen.bytes, clusterSize: image.clusterSize))
        #expect(usage.active.virtualSize == image.virtualSize)
        #expect(usage.snapshots.map(\.virtualSize) == image.snapshots.map(\.diskSize))
        #expect(usage.file.byteCount == UInt64(specimen.bytes.count))
    }

    @Test("What deleting a set frees is said to the cluster", arguments: Specimen.all)
    func freed(_ specimen: Specimen) throws {
        let image = try Image(storage: InMemoryStorage(specimen.bytes, isWritable: false))
        let before = UsageModel.usedByteCount(specimen.bytes, clusterSize: image.clusterSize)
        let all = image.snapshots.indices
        for set in 0..<(1 << all.count) {
            let doomed = all.filter { set >> $0 & 1 == 1 }
            let forecast = try image.byteCountFreed(byDeletingSnapshotsAt: doomed)
            var copy = try Image(storage: InMemoryStorage(specimen.bytes))
            try copy.deleteSnapshots(at: doomed)
            let after = UsageModel.usedByteCount(copy.close().bytes, clusterSize: image.clusterSize)
            #expect(forecast == Int64(before - after), "\(doomed)")
        }
    }

    @Test("A snapshot's exclusive bytes are what deleting it alone frees, but for the snapshot table")
    func exclusive() throws {
        var image = try Image(storage: InMemoryStorage(Self.image(dataClusterCount: 100)))
        for name in ["a", "b", "c"] { try image.createSnapshot(named: name) }
        // All states are equal: nobody holds anything alone but the L1 table.
        let usage = try image.usage()
        #expect(usage.snapshots.map(\.exclusiveByteCount) == [512, 512, 512])
        #expect(usage.active.exclusiveByteCount == 512)
        #expect(usage.active.sharedByteCount == 102 * 512)
        #expect(usage.active.mappedByteCount == 100 * 512)
        #expect(try image.byteCountFreed(byDeletingSnapshotsAt: [1]) == 512)
        // The last one takes the snapshot table with it.
        #expect(try image.byteCountFreed(byDeletingSnapshotsAt: 0..<3) == 4 * 512)
        #expect(try image.byteCountFreed(byDeletingSnapshotsAt: [Int]()) == 0)
    }

    @Test("An image that only reading is allowed for is looked at, and nothing is written")
    func readOnly() throws {
        let storage = CountingStorage(Self.image(dataClusterCount: 10), isWritable: false)
        let tally = storage.tally
        let image = try Image(storage: storage)
        _ = try image.usage()
        _ = try image.byteCountFreed(byDeletingSnapshotsAt: [])
        #expect(tally.changeCount == 0)
    }

    @Test("Clusters that only a refcount knows of are leaked, not free")
    func leaked() throws {
        var builder = ImageBuilder(size: 1 << 20)
        builder.fill(10)
        builder.take(7)
        builder.take(5, refcount: 0)
        let bytes = builder.finished().bytes
        let usage = try Image(storage: InMemoryStorage(bytes)).usage()
        #expect(usage.file.leakedByteCount == 7 * 512)
        #expect(usage.file.freeByteCount == 5 * 512)
        #expect(usage.file.dataByteCount == 10 * 512)
        #expect(UsageModel(usage) == UsageModel(bytes, clusterSize: 512))
    }

    @Test("A table that a tree has twice is its own, and a cluster that two tables share is its own, too")
    func twice() throws {
        var builder = ImageBuilder(size: 1 << 20)
        builder.fill(70)
        var file = builder.finished()
        let l1Table = Int(file.number(at: 40))
        // The third L1 entry repeats the first; the second table's first entry that of the first.
        let first = file.number(at: l1Table)
        file.set(first, at: l1Table + 16)
        let tables = (0..<2).map { Int(file.number(at: l1Table + 8 * $0) & ~(1 << 63)) }
        file.set(file.number(at: tables[0]), at: tables[1])
        let usage = try Image(storage: InMemoryStorage(file.bytes)).usage()
        #expect(UsageModel(usage) == UsageModel(file.bytes, clusterSize: 512))
        #expect(usage.active.mappedByteCount == (70 + 64) * 512)
    }

    @Test("Entries that can't be are refused with their place")
    func corrupt() throws {
        var builder = ImageBuilder(size: 1 << 20)
        builder.fill(10)
        var file = builder.finished()
        let table = Int(file.number(at: Int(file.number(at: 40))) & ~(1 << 63))
        file.set(0x00FF_0000_0000_0000, at: table + 24)
        let bytes = file.bytes
        let image = try Image(storage: InMemoryStorage(bytes))
        let error = #expect(throws: QCOW2Error.self) { try image.usage() }
        #expect(error?.code == .corrupt)
        #expect(error?.offset == HostOffset(UInt64(table + 24)))
    }

    @Test("A cancelled look stops")
    func cancelled() throws {
        let image = try Image(storage: InMemoryStorage(Self.image(dataClusterCount: 10)))
        var options = ScanOptions()
        options.progress = { _ in false }
        let error = #expect(throws: QCOW2Error.self) { try image.usage(options: options) }
        #expect(error?.code == .cancelled)
    }

    static func image(dataClusterCount: Int) -> [UInt8] {
        var builder = ImageBuilder(size: 1 << 20)
        builder.fill(dataClusterCount)
        return builder.finished().bytes
    }
}
