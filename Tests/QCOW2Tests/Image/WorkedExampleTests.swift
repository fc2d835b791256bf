// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import Testing

/// Section "8 Worked example": what QEMU wrote, and what our operations make of it.
@Suite struct WorkedExampleTests {
    private func open(_ state: WorkedExample) throws -> Image<InMemoryStorage> {
        try Image(storage: InMemoryStorage(state.bytes))
    }

    private static let zeros = [UInt8](repeating: 0, count: 512)
    private static let ones = [UInt8](repeating: 0x11, count: 512)
    private static let twos = [UInt8](repeating: 0x22, count: 512)

    static let lengths: [(WorkedExample, Int)] = [(.a, 1544), (.b, 3072), (.c, 3651), (.d, 5120)]

    @Test("The listing builds the files that it describes", arguments: lengths)
    func length(_ state: WorkedExample, _ byteCount: Int) { #expect(state.bytes.count == byteCount) }

    @Test("Every state is consistent", arguments: WorkedExample.allCases)
    func consistent(_ state: WorkedExample) { #expect(ConsistencyCount(state.bytes).findings == []) }

    @Test("The states open with the header's values", arguments: WorkedExample.allCases)
    func opens(_ state: WorkedExample) throws {
        let image = try open(state)
        #expect(image.version == 3 && image.virtualSize == 8192 && image.clusterSize == 512)
        #expect(image.refcountBits == 16 && image.encryption == .none && !image.hasBackingFile)
        #expect(image.incompatibleFeatures == [] && image.compatibleFeatures == [] && image.autoclearFeatures == [])
        let journal = image.close().journal
        #expect(journal.isEmpty)
    }

    @Test("The snapshot is listed with all its fields", arguments: [WorkedExample.c, .d, .e])
    func list(_ state: WorkedExample) throws {
        let image = try open(state)
        let snapshot = try #require(image.snapshots.first)
        #expect(image.snapshots.count == 1)
        #expect(snapshot.id == "1" && snapshot.name == "s1")
        #expect(snapshot.date == SnapshotDate(seconds: 0x6B03_BDF9, nanoseconds: 0x2270_77A0))
        #expect(snapshot.diskSize == 8192 && snapshot.vmStateSize == 0 && snapshot.vmClock == 0)
        #expect(snapshot.icount == 0)
    }

    @Test("States without a snapshot list none", arguments: [WorkedExample.a, .b, .f])
    func listEmpty(_ state: WorkedExample) throws {
        let image = try open(state)
        #expect(image.snapshots.isEmpty)
    }

    static let contents: [(WorkedExample, UInt8)] = [
        (.a, 0), (.b, 0x11), (.c, 0x11), (.d, 0x22), (.e, 0x11), (.f, 0x11),
    ]

    @Test("The active state reads as written", arguments: contents)
    func read(_ state: WorkedExample, _ byte: UInt8) throws {
        let image = try open(state)
        #expect(try image.read(512, at: GuestOffset(0)) == [UInt8](repeating: byte, count: 512))
        #expect(try image.read(1024, at: GuestOffset(512)) == Self.zeros + Self.zeros)
    }

    @Test("The snapshot keeps what was written before it", arguments: [WorkedExample.c, .d, .e])
    func readSnapshot(_ state: WorkedExample) throws {
        let image = try open(state)
        #expect(try image.read(512, at: GuestOffset(0), of: .snapshot(.name("s1"))) == Self.ones)
    }

    @Test("Creating from state B gives the counts of the last paragraph")
    func create() throws {
        var image = try open(.b)
        try image.createSnapshot(named: "s1")
        let file = ImageBytes(bytes: image.close().bytes)
        #expect(ConsistencyCount(file.bytes).findings == [])

        // Six fresh clusters: L2 copy, active L1, snapshot L1, snapshot table, refcount block, refcount table.
        let refcountTable = Int(file.number(at: 48))
        let block = Int(file.number(at: refcountTable))
        let snapshotTable = Int(file.number(at: 64))
        let (activeL1, snapshotL1) = (Int(file.number(at: 40)), Int(file.number(at: snapshotTable)))
        let l2Copy = Int(file.number(at: activeL1))
        let fresh = [l2Copy, activeL1, snapshotL1, snapshotTable, block, refcountTable]
        #expect(fresh.sorted() == (6...11).map { $0 * 512 })
        #expect(file.number(at: snapshotL1) == UInt64(l2Copy))
        #expect(file.number(at: l2Copy) == 0xA00)

        let refcounts = (0..<16).map { file.number(2, at: block + $0 * 2) }
        var expected: [UInt64] = [1, 0, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
        expected[l2Copy / 512] = 2
        #expect(refcounts == expected)
    }

    @Test("Deleting gives back the live structures of state B", arguments: [WorkedExample.c, .e])
    func delete(_ state: WorkedExample) throws {
        var image = try open(state)
        try image.deleteSnapshots([.name("s1")])
        #expect(try image.read(512, at: GuestOffset(0)) == Self.ones)
        let file = ImageBytes(bytes: image.close().bytes)
        #expect(ConsistencyCount(file.bytes).findings == [])
        #expect(file.number(4, at: 60) == 0 && file.number(at: 64) == 0)
        let l1Entry = file.number(at: Int(file.number(at: 40)))
        #expect(l1Entry >> 63 == 1)
        #expect(file.number(at: Int(l1Entry & ~(1 << 63))) == 0x8000_0000_0000_0A00)
        // As many clusters as in state B: header, table, block, L1, L2, data.
        let block = Int(file.number(at: Int(file.number(at: 48))))
        #expect((0..<256).count { file.number(2, at: block + $0 * 2) == 1 } == 6)
        #expect((0..<256).allSatisfy { file.number(2, at: block + $0 * 2) <= 1 })
    }

    @Test("Applying in state D gives back the data, and the flags of state E")
    func apply() throws {
        var image = try open(.d)
        #expect(try image.read(512, at: GuestOffset(0)) == Self.twos)
        try image.applySnapshot(.id("1"))
        #expect(try image.read(512, at: GuestOffset(0)) == Self.ones)
        #expect(try image.read(512, at: GuestOffset(0), of: .snapshot(.id("1"))) == Self.ones)
        let file = ImageBytes(bytes: image.close().bytes)
        #expect(ConsistencyCount(file.bytes).findings == [])
        // No copied flag: everything is shared with the snapshot.
        let l1Entry = file.number(at: Int(file.number(at: 40)))
        #expect(l1Entry == 0x800 && file.number(at: 0x800) == 0xA00)
    }
}
