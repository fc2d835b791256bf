// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import Testing

/// Images with more snapshots than a lane of eight bits has numbers for, and larger than one window.
@Suite struct ManySnapshotsTests {
    /// An image whose snapshots each have an L2 table and a cluster of their own, and share 60 clusters with all.
    static func image(snapshotCount: Int, freeClusterCount: Int = 0) -> [UInt8] {
        var builder = ImageBuilder(size: 1 << 15, refcountTableClusterCount: 8)
        let shared = builder.take(60, refcount: UInt64(snapshotCount + 1))
        // In the middle, so that some clusters are in one window and some in another.
        func tree(_ builder: inout ImageBuilder) -> Int {
            let l1Table = builder.take()
            let l2Table = builder.take()
            builder.set(UInt64(l2Table), at: l1Table)
            for index in 0..<60 { builder.set(UInt64(shared + index * 512), at: l2Table + index * 8) }
            builder.set(UInt64(builder.take()), at: l2Table + 60 * 8)
            return l1Table
        }
        builder.set(1, 4, at: 36)
        builder.set(UInt64(tree(&builder)), at: 40)
        var snapshots: [RawSnapshot] = []
        for index in 0..<snapshotCount {
            if index == snapshotCount / 2 { builder.take(freeClusterCount, refcount: 0) }
            var snapshot = RawSnapshot()
            snapshot.l1TableOffset = tree(&builder)
            snapshot.l1EntryCount = 1
            snapshot.id = Array("\(index + 1)".utf8)
            snapshot.name = Array("s\(index + 1)".utf8)
            snapshots.append(snapshot)
        }
        builder.setSnapshots(snapshots)
        return builder.finished().bytes
    }

    @Test("Each of many snapshots holds its own clusters alone", arguments: [2, 251, 252, 300])
    func exclusive(_ snapshotCount: Int) throws {
        let usage = try Image(storage: InMemoryStorage(Self.image(snapshotCount: snapshotCount))).usage()
        for state in [usage.active] + usage.snapshots {
            #expect(state.exclusiveByteCount == 3 * 512)
            #expect(state.sharedByteCount == 60 * 512)
            #expect(state.mappedByteCount == 61 * 512)
        }
        #expect(usage.file.dataByteCount == UInt64(60 + snapshotCount + 1) * 512)
        #expect(usage.file.leakedByteCount == 0)
        #expect(usage.file.freeByteCount == 0)
    }

    @Test("Several windows say the same as one")
    func windows() throws {
        let bytes = Self.image(snapshotCount: 40, freeClusterCount: 40_000)
        let image = try Image(storage: InMemoryStorage(bytes))
        let one = try image.usage()
        var options = ScanOptions()
        // Windows of 32,768 clusters, the smallest there are.
        options.memoryBudget = 1
        #expect(try image.usage(options: options) == one)
        #expect(one.snapshots.allSatisfy { $0.exclusiveByteCount == 3 * 512 })
        #expect(one.file.freeByteCount == 40_000 * 512)
    }
}
