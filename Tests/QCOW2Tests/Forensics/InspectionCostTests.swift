// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// The work of an inspection follows what a file has on the disk.
@Suite struct InspectionCostTests {
    private func inspect(_ storage: borrowing SparseStorage) throws -> Inspection { try Inspection(of: storage) }

    @Test(
        "A sparse file of any length is inspected at the cost of its bytes",
        arguments: ["v3-512", "v3-4k", "v3-16k-extended"], [15 << 40, 1 << 55, UInt64(1) << 63 - 512])
    func sparse(_ name: String, _ length: UInt64) throws {
        let bytes = try Fixtures.bytes("\(name).qcow2")
        let storage = SparseStorage(
            [(0, bytes), (length - 1024, [UInt8](repeating: 0x77, count: 512))], length: length)
        let tally = storage.tally
        let inspection = try inspect(storage)
        #expect(inspection.openingError == nil && inspection.snapshots.count == 1)
        #expect(inspection.clusters?.freeWithData == 1 && inspection.clusters?.isCut == false)
        #expect(tally.requestedByteCount < 12 * bytes.count + 16 << 20, "\(tally.requestedByteCount)")
    }

    @Test("A file of another kind is searched as far as it has bytes", arguments: [15 << 40, UInt64(1) << 63 - 512])
    func other(_ length: UInt64) throws {
        var entry = ImageBytes()
        entry.set(RawSnapshot.named("7", "old").encoded, at: 0)
        let storage = SparseStorage([(length / 2 & ~511, entry.bytes)], length: length)
        let tally = storage.tally
        let inspection = try inspect(storage)
        #expect(!inspection.hasMagic && inspection.deletedSnapshots.map(\.snapshot.name) == ["old"])
        #expect(tally.requestedByteCount < 4 << 20)
    }

    @Test("L1 tables, L2 tables and refcount blocks in holes cost nothing")
    func holes() throws {
        // 300 snapshots with an L1 table of 32 MiB each, of which one entry is on the disk, and a refcount table of
        // 8 MiB that is full of blocks which aren't.
        var header = ImageBuilder(clusterBits: 16, size: 1 << 30)
        header.fill(1)
        let (table, first) = (UInt64(1) << 30, UInt64(1) << 34)
        header.setSnapshots(
            (1...300).map { index in
                var entry = RawSnapshot.named("\(index)", "s\(index)")
                (entry.l1TableOffset, entry.l1EntryCount) = (Int(first) + index << 25, 1 << 22)
                return entry
            })
        var image = header.finished()
        let block = image.number(at: Int(image.number(at: 48)))
        image.set(table, at: 48)
        image.set(128, 4, at: 56)
        var refcounts = ImageBytes()
        refcounts.set(block, at: 0)
        for index in 1..<(1 << 17) { refcounts.set(UInt64(1) << 40 + UInt64(index) << 16, at: index * 8) }
        var parts: [(start: UInt64, bytes: [UInt8])] = [(0, image.bytes), (table, refcounts.bytes)]
        for index in 1...300 {
            var entries = ImageBytes()
            for entry in 0..<8 { entries.set(UInt64(1) << 42 + UInt64(index * 8 + entry) << 16, at: entry * 8) }
            parts.append((first + UInt64(index) << 25 + 4096, entries.bytes))
        }
        let storage = SparseStorage(parts, length: 1 << 44)
        let tally = storage.tally
        let inspection = try inspect(storage)
        #expect(inspection.snapshots.count == 300 && inspection.clusters != nil)
        #expect(tally.requestedByteCount < 64 << 20, "\(tally.requestedByteCount)")
    }

    @Test("An inspection stops when asked to, wherever it is")
    func cancelled() throws {
        var image = try Image(storage: InMemoryStorage(try Fixtures.bytes("v3-4k.qcow2")))
        var keeping = WriteOptions()
        keeping.discardsFreedClusters = false
        for index in 0..<20 { try image.createSnapshot(named: "s\(index)", options: keeping) }
        try image.deleteSnapshots([.name("s3")], options: keeping)
        let bytes = image.close().bytes
        nonisolated(unsafe) var calls = 0
        var options = InspectionOptions()
        options.progress = { _ in
            calls += 1
            return true
        }
        _ = try Inspection(of: InMemoryStorage(bytes), options: options)
        let count = calls
        #expect(count > 40)
        for limit in stride(from: 0, to: count, by: 7) {
            calls = 0
            options.progress = { _ in
                calls += 1
                return calls <= limit
            }
            let error = #expect(throws: QCOW2Error.self) {
                _ = try Inspection(of: InMemoryStorage(bytes), options: options)
            }
            #expect(error?.code == .cancelled && calls == limit + 1)
        }
    }

    @Test(
        "The command needs little memory and time for a sparse file of 15 TiB",
        .enabled(if: MeasuredCommand.isPossible, "needs GNU time"))
    func command() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Data(try Fixtures.bytes("v3-512.qcow2")).write(to: URL(fileURLWithPath: path))
        guard truncate(path, 15 << 40) == 0 else { return }  // Not on every file system.
        let result = try MeasuredCommand(["inspect", path])
        #expect(result.status == 0, "\(result.output)")
        #expect(result.peakByteCount < 96 << 20 && result.seconds < 10, "\(result.peakByteCount) \(result.seconds)")
    }
}
