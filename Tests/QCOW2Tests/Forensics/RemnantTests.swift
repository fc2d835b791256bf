// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// What deleted snapshots leave.
@Suite struct RemnantTests {
    private static let date = SnapshotDate(seconds: 1_700_000_000, nanoseconds: 123_000)

    /// A golden image in which snapshots were made and deleted without punching holes.
    private func image(_ name: String, _ change: (inout Image<InMemoryStorage>) throws -> Void) throws -> [UInt8] {
        var image = try Image(storage: InMemoryStorage(try Fixtures.bytes("\(name).qcow2")))
        try change(&image)
        return image.close().bytes
    }

    private var keeping: WriteOptions {
        var options = WriteOptions()
        options.discardsFreedClusters = false
        return options
    }

    private func inspect(_ bytes: [UInt8], searching limit: UInt64 = 1 << 30) throws -> Inspection {
        var options = InspectionOptions()
        options.searchByteLimit = limit
        return try Inspection(of: InMemoryStorage(bytes, isWritable: false), options: options)
    }

    @Test(
        "A deleted snapshot is found with its name, date and L1 table",
        arguments: ["v2-512", "v3-512", "v3-4k", "v3-16k-extended", "v3-512-refcount2", "v3-512-refcount64"])
    func deleted(_ name: String) throws {
        let bytes = try image(name) { image in
            try image.createSnapshot(named: "gone", date: Self.date, options: keeping)
            try image.deleteSnapshots([.name("gone")], options: keeping)
        }
        let inspection = try inspect(bytes)
        try #require(inspection.deletedSnapshots.count == 1)
        let remnant = inspection.deletedSnapshots[0]
        #expect(remnant.snapshot.name == "gone" && remnant.snapshot.id == "2" && remnant.snapshot.date == Self.date)
        #expect(remnant.place == .free && remnant.l1State == .readable)
        #expect(remnant.offset.rawValue % 8 == 0 && bytes.count > Int(remnant.offset.rawValue))
        let codes = Set(inspection.findings.map(\.code.rawValue))
        #expect(codes.isSuperset(of: ["deleted-snapshot", "old-snapshot-table", "free-clusters-with-data"]))
        // The newest was deleted: no number is missing.
        #expect(!codes.contains("snapshot-id-missing"))
        #expect(inspection.snapshots.map(\.snapshot.name) == ["first"])
    }

    @Test("A gap in the IDs and a table in a free cluster tell of the same snapshot")
    func gap() throws {
        let bytes = try image("v3-4k") { image in
            for name in ["a", "b", "c"] {
                try image.createSnapshot(named: name, date: Self.date, options: keeping)
            }
            try image.deleteSnapshots([.name("b")], options: keeping)
        }
        let inspection = try inspect(bytes)
        #expect(inspection.deletedSnapshots.map(\.snapshot.id) == ["3"])
        let gap = inspection.findings.first { $0.code.rawValue == "snapshot-id-missing" }
        #expect(gap?.message.contains("1 snapshot IDs below 4 are missing: 3.") == true)
        #expect(gap?.confidence == .probable && gap?.confidenceReason != nil)
    }

    @Test("Where space was given back there is nothing to find")
    func punched() throws {
        let bytes = try image("v3-4k") { image in
            try image.createSnapshot(named: "gone")
            try image.deleteSnapshots([.name("gone")])
        }
        let inspection = try inspect(bytes)
        #expect(inspection.deletedSnapshots.isEmpty && inspection.oldL1Tables.isEmpty)
        #expect(inspection.clusters?.freeWithData == 0)
    }

    @Test("An old table in the slack of the present one is found")
    func slack() throws {
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        var old = RawSnapshot.named("7", "old")
        (old.l1TableOffset, old.l1EntryCount) = (0x1A00, 1)
        file.set(old.encoded, at: 0x1C48 + 64)
        let inspection = try inspect(file.bytes)
        try #require(inspection.deletedSnapshots.count == 1)
        #expect(inspection.deletedSnapshots[0].place == .slack)
        // The snapshot `first` uses that table now.
        #expect(inspection.deletedSnapshots[0].l1State == .reused)
    }

    @Test("A whole raw file is searched, whatever its clusters were")
    func raw() throws {
        var file = ImageBytes(bytes: [UInt8](repeating: 0x55, count: 1 << 16))
        var old = RawSnapshot.named("7", "old")
        (old.l1TableOffset, old.l1EntryCount) = (0x1A00, 1)
        file.set(old.encoded, at: 0x7000)
        let inspection = try inspect(file.bytes)
        #expect(!inspection.hasMagic)
        #expect(inspection.deletedSnapshots.map(\.snapshot.name) == ["old"])
        #expect(inspection.deletedSnapshots.first?.place == .unknown)
        #expect(inspection.deletedSnapshots.first?.offset.rawValue == 0x7000)
        #expect(inspection.deletedSnapshots.first?.l1State == .notLookedAt)
    }

    @Test("Random data doesn't look like a snapshot")
    func random() throws {
        var random = SplitMix64(seed: 0x5EED)
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        for _ in 0..<(1 << 17) { file.set(random.next(), at: file.bytes.count) }
        let inspection = try inspect(file.bytes)
        #expect(inspection.deletedSnapshots.isEmpty && inspection.oldL1Tables.isEmpty)
        #expect(inspection.clusters?.freeWithData == 2048)
    }

    @Test("A search that is cut says where")
    func cut() throws {
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        file.set([UInt8](repeating: 1, count: 3 << 20), at: 0x2200)
        let inspection = try inspect(file.bytes, searching: 2 << 20)
        let finding = try #require(inspection.findings.first { $0.code.rawValue == "search-cut" })
        #expect(finding.offset?.rawValue == 0x2200 + 2 << 20)
        #expect(inspection.clusters?.isCut == true)

        var options = InspectionOptions()
        options.tableByteLimit = 100
        let walk = try Inspection(of: InMemoryStorage(file.bytes), options: options)
        #expect(walk.findings.contains { $0.code.rawValue == "search-cut" } && walk.clusters == nil)
    }
}
