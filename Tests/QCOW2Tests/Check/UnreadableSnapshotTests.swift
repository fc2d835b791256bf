// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Repairing images some of whose snapshots can't be read: section "6.9 Check and repair".
@Suite struct UnreadableSnapshotTests {
    /// Three snapshots, the first of which alone holds some clusters.
    private static func original(_ name: String = "v3-512") throws -> [UInt8] {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2")))
        image.guestWriteOptions.bitmaps = .drop
        try image.write([UInt8](repeating: 0xA5, count: 12 << 10), at: GuestOffset(0))
        try image.flush()
        try image.createSnapshot(named: "second")
        try image.createSnapshot(named: "third")
        return image.close().bytes
    }

    /// Damage to an entry of the table, and what the check makes of it.
    enum Damage: String, CaseIterable {
        /// The L1 table lies past the end of the file.
        case l1Offset = "snapshot-entry-invalid"
        /// Where the next entry starts isn't known.
        case extraData = "snapshot-table-invalid"

        func apply(to image: inout ImageBytes, at entry: Int) {
            switch self {
            case .l1Offset: image.set(1 << 40, at: entry)
            case .extraData: image.set(2000, 4, at: entry + 36)
            }
        }
    }

    /// Where the entries of the snapshot table are.
    private static func entries(of image: ImageBytes) throws -> [Int] {
        let opened = try Image(storage: InMemoryStorage(image.bytes, isWritable: false))
        var offset = Int(image.number(at: 64))
        return opened.snapshots.map { snapshot in
            defer { offset += (40 + 24 + snapshot.id.utf8.count + snapshot.name.utf8.count + 7) / 8 * 8 }
            return offset
        }
    }

    @Test("What is left of an image that can't be opened is listed and read", arguments: Damage.allCases)
    func readable(_ damage: Damage) throws {
        let original = try Self.original()
        var image = ImageBytes(bytes: original)
        let place = try Self.entries(of: image)[1]
        damage.apply(to: &image, at: place)
        // The refcount table, which no reader needs.
        image.set(1 << 40, at: 48)
        #expect(throws: QCOW2Error.self) { _ = try Image(storage: InMemoryStorage(image.bytes, isWritable: false)) }
        let sound = try Image(storage: InMemoryStorage(original, isWritable: false))
        let suspect = try SuspectImage(storage: InMemoryStorage(image.bytes, isWritable: false))
        #expect(suspect.snapshots.map(\.name) == (damage == .l1Offset ? ["first", "third"] : ["first"]))
        for state in [DiskState.active] + suspect.snapshots.map({ .snapshot(.id($0.id)) }) {
            let bytes = try suspect.read(12288, at: GuestOffset(0), of: state)
            #expect(try bytes == sound.read(12288, at: GuestOffset(0), of: state))
        }
        #expect(throws: QCOW2Error.self) { try suspect.read(512, at: GuestOffset(0), of: .snapshot(.name("second"))) }
    }

    /// Refcounts of one bit allow no snapshots, those of two bits not three of one cluster.
    static let layouts = [
        "v2-512", "v3-512", "v3-512-bitmaps", "v3-512-refcount4", "v3-512-refcount64", "v3-4k-zstd", "v3-16k-extended",
    ]

    @Test(
        "Repaired, the entry is still there, and once it is mended, so is everything it holds",
        arguments: layouts, Damage.allCases)
    func kept(_ name: String, _ damage: Damage) throws {
        for index in 0..<3 { try kept(name, damage, index) }
    }

    private func kept(_ name: String, _ damage: Damage, _ index: Int) throws {
        let original = try Self.original(name)
        var image = ImageBytes(bytes: original)
        let old = try Contents(of: original)
        let place = try Self.entries(of: image)[index]
        let entry = Array(original[place..<(place + 48)])
        damage.apply(to: &image, at: place)
        let damaged = Array(image.bytes[place..<(place + 48)])
        // Flags to repair in the first L2 table of the active state, which the third snapshot uses, too.
        let l1Table = Int(image.number(at: 40))
        let l2Table = Int(image.number(at: l1Table) & 0xFF_FFFF_FFFF)
        image.set(image.number(at: l2Table) | 1 << 63, at: l2Table)

        var repaired = image.bytes
        for scope in [RepairScope.all, .leaks, .all, .leaks] {
            let (bytes, report) = try RepairTests.repair(repaired, scope)
            #expect(report.loweredRefcountCount == 0 && report.droppedSnapshotCount == 0)
            let unreadableCount = damage == .l1Offset ? 1 : old.names.count - index
            if scope == .all { #expect(report.keptUnreadableSnapshotCount == unreadableCount, "\(index)") }
            repaired = bytes
        }
        let result = try CheckResult(repaired)
        #expect(result.codes[damage.rawValue] == 1, "\(result.text)")
        // Where the table ends is known: what it says can move, and the flags with it.
        if damage == .l1Offset { #expect(result.report.count(of: .critical) == 0, "\(result.text)") }

        var mended = ImageBytes(bytes: repaired)
        let table = Int(mended.number(at: 64))
        let moved = table + place - Int(image.number(at: 64))
        #expect(Array(repaired[moved..<(moved + 48)]) == damaged)
        mended.set(entry, at: moved)
        #expect(try Contents(of: mended.bytes) == old, "\(index)")
        let (final, _) = try RepairTests.repair(mended.bytes)
        #expect(try CheckResult(final).report.tallies.isEmpty, "\(index)")
        #expect(try Contents(of: final) == old, "\(index)")
    }

    @Test("Repairing leaks alone drops nothing, whatever is asked for", arguments: Damage.allCases)
    func leaks(_ damage: Damage) throws {
        var image = ImageBytes(bytes: try Self.original())
        damage.apply(to: &image, at: try Self.entries(of: image)[1])
        var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
        let report = try suspect.repair(.leaks, droppingUnreadableSnapshots: true)
        #expect(report.droppedSnapshotCount == 0 && report.loweredRefcountCount == 0)
        #expect(try CheckResult(suspect.close().bytes).codes[damage.rawValue] == 1)
    }

    @Test(
        "Dropped on request, it is gone; what only it held is leaked until leaks are repaired",
        arguments: Damage.allCases)
    func dropped(_ damage: Damage) throws {
        let original = try Self.original()
        var image = ImageBytes(bytes: original)
        let index = damage == .l1Offset ? 0 : 2
        damage.apply(to: &image, at: try Self.entries(of: image)[index])
        var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
        let report = try suspect.repair(.all, droppingUnreadableSnapshots: true)
        #expect(report.droppedSnapshotCount == 1 && report.keptUnreadableSnapshotCount == 0)
        #expect(report.loweredRefcountCount == 0 && report.rewritesSnapshotTable)
        let repaired = suspect.close().bytes
        let old = try Contents(of: original)
        let names = old.names.enumerated().filter { $0.offset != index }.map(\.element)
        let states = old.states.enumerated().filter { $0.offset != index + 1 }.map(\.element)
        let result = try CheckResult(repaired)
        #expect(result.report.worstSeverity == .leak, "\(result.text)")

        // Data of its own, which the last one doesn't have, is only freed on request, too.
        if index == 0 {
            let held = try RepairTests.repair(repaired, .leaks)
            #expect(!held.report.remnants.isEmpty && held.bytes == repaired)
        }
        let (final, last) = try RepairTests.repair(repaired, .leaks, discardingRemnants: true)
        #expect(last.loweredRefcountCount > 0)
        #expect(try CheckResult(final).report.tallies.isEmpty)
        let new = try Contents(of: final)
        #expect(new.names == names && new.states == states)
    }

    @Test("More entries than are read stay, too")
    func overhanging() throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        let first = Array(image.bytes[0x1C00..<0x1C48])
        // Entries that lack the disk size, which a repair completes where it knows all of them.
        let entry = RawSnapshot(extra: []).encoded
        let padded = entry + [UInt8](repeating: 0, count: -entry.count & 7)
        let table = first + (0..<65536).lazy.map { _ in padded }.joined()
        image.grow(to: 0x2200)
        image.bytes += table
        image.set(65537, 4, at: 60)
        image.set(0x2200, at: 64)
        var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
        let report = try suspect.repair(.all)
        #expect(report.keptUnreadableSnapshotCount == 1 && !report.rewritesSnapshotTable)
        let repaired = ImageBytes(bytes: suspect.close().bytes)
        #expect(report.hasChanges && repaired.number(4, at: 60) == 65537 && repaired.number(at: 64) == 0x2200)
        #expect(isSame(Array(repaired.bytes[0x2200..<(0x2200 + table.count)]), table))
    }
}
