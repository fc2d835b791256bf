// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2Testing
import Testing

@testable import QCOW2

/// What the format or its readers can't hold is refused before the first write.
@Suite struct SnapshotLimitTests {
    @Test(
        "Refcounts go up to their largest number, and not further",
        arguments: [("v3-512-refcount2", 2), ("v3-512-refcount4", 14)])
    func refcounts(_ name: String, _ most: Int) throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2")))
        while image.snapshots.count < most { try image.createSnapshot(named: "s\(image.snapshots.count)") }
        try expectLimit(&image) { image throws(QCOW2Error) in try image.createSnapshot(named: "more") }
        try expectLimit(&image) { image throws(QCOW2Error) in
            try image.applySnapshot(.name("s1"), savingCurrentAs: "more")
        }
        // Room again after a delete.
        try image.deleteSnapshots([.name("first")])
        try image.createSnapshot(named: "more")
        let findings = ConsistencyCount(image.close().bytes).findings
        #expect(findings.isEmpty)
    }

    @Test("65,536 snapshots are the most")
    func snapshotCount() throws {
        var builder = ImageBuilder(clusterBits: 16)
        builder.setSnapshots(
            (1...65536).map { number in
                var snapshot = RawSnapshot()
                snapshot.id = Array("\(number)".utf8)
                snapshot.name = Array("s\(number)".utf8)
                snapshot.extra = RawSnapshot.extra(0, 0, .max)
                return snapshot
            })
        var image = try Image(storage: InMemoryStorage(builder.finished().bytes))
        #expect(image.snapshots.count == 65536)
        try expectLimit(&image) { image throws(QCOW2Error) in try image.createSnapshot(named: "more") }
        try image.deleteSnapshots(at: [0])
        #expect(try image.createSnapshot(named: "more").id == "65537")
    }

    @Test("A snapshot table of 64 MiB is the largest")
    func tableSize() throws {
        var builder = ImageBuilder(clusterBits: 16)
        // 512 entries of 128 KiB are 64 MiB.
        let entryByteCount = 131_072
        builder.setSnapshots(
            (0..<512).map { number in
                var snapshot = RawSnapshot()
                let fixed = 40 + 24 + 1000
                snapshot.name = [UInt8](repeating: UInt8(ascii: "n"), count: 65000) + Array(String(1000 + number).utf8)
                snapshot.id = [UInt8](
                    repeating: UInt8(ascii: "i"), count: entryByteCount - fixed - snapshot.name.count)
                snapshot.extra = RawSnapshot.extra(0, 0, .max) + [UInt8](repeating: 7, count: 1000)
                return snapshot
            })
        var image = try Image(storage: InMemoryStorage(builder.finished().bytes))
        #expect(image.opened.snapshotTableByteCount == SnapshotTableEntry.maximumTableByteCount)
        try expectLimit(&image) { image throws(QCOW2Error) in try image.createSnapshot(named: "y") }
    }

    /// Checks that an operation is refused and writes nothing.
    private func expectLimit(
        _ image: inout Image<InMemoryStorage>,
        _ body: (inout Image<InMemoryStorage>) throws(QCOW2Error) -> Snapshot
    ) throws {
        let before = image.storage.journal.count
        var refusal: QCOW2Error?
        do throws(QCOW2Error) { _ = try body(&image) } catch { refusal = error }
        #expect(refusal?.code == .limitExceeded)
        #expect(image.storage.journal.count == before)
    }
}
