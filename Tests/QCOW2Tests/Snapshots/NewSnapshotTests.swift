// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2Testing
import Testing

@testable import QCOW2

/// Names, IDs and selectors.
@Suite struct NewSnapshotTests {
    static let ids: [([String], String)] = [
        ([], "1"), (["1"], "2"), (["2", "1"], "3"), (["12xyz"], "13"), (["abc"], "1"), (["", "007"], "8"),
        ([" \t9"], "10"), (["+4"], "5"), (["18446744073709551614"], "18446744073709551615"),
        // QEMU would start over at 0, and use IDs twice.
        (["18446744073709551615"], "1"), (["18446744073709551615", "1", "2"], "3"), (["99999999999999999999999"], "1"),
        (["-1"], "1"),
    ]

    @Test("A new ID is one above the largest number, unless that overflows", arguments: ids)
    func nextID(_ existing: [String], _ next: String) {
        let entries = existing.map { entry(id: Array($0.utf8), name: []) }
        #expect(SnapshotTableEntry.nextID(after: entries) == Array(next.utf8))
    }

    static let goodNames = ["a", "-", "1", "id:1", "ünïcode ✓", "two words", String(repeating: "x", count: 255)]
    static let badNames = ["", "a\nb", "\u{0}", "tab\t", "\u{7F}", "\u{85}", String(repeating: "é", count: 128)]

    @Test("Names that every tool can show and delete are taken", arguments: goodNames)
    func goodName(_ name: String) throws {
        #expect(try SnapshotTableEntry.checkedName(Array(name.utf8), among: []) == Array(name.utf8))
        let error = #expect(throws: QCOW2Error.self) {
            try SnapshotTableEntry.checkedName(Array(name.utf8), among: [entry(id: [1], name: Array(name.utf8))])
        }
        #expect(error?.code == .nameInUse)
    }

    @Test("Other names are refused", arguments: badNames)
    func badName(_ name: String) {
        let error = #expect(throws: QCOW2Error.self) { try SnapshotTableEntry.checkedName(Array(name.utf8), among: []) }
        #expect(error?.code == .invalidName)
    }

    @Test("A name that isn't UTF-8 is refused")
    func invalidName() {
        let error = #expect(throws: QCOW2Error.self) { try SnapshotTableEntry.checkedName([0x61, 0xFF], among: []) }
        #expect(error?.code == .invalidName)
    }

    @Test("With any bytes allowed, names are taken as they are, cut off after 255 bytes, and may exist already")
    func anyBytes() throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2")))
        let long = [UInt8](repeating: 0xFF, count: 256)
        for name in [[], [0x0A, 0xC3], Array("first".utf8), long] {
            let created = try image.createSnapshot(
                NewSnapshot(
                    nameBytes: name, date: SnapshotDate(seconds: 7, nanoseconds: 8), icount: 9, namePolicy: .anyBytes))
            #expect(created.nameBytes == Array(name.prefix(255)) && created.icount == 9)
            #expect(created.date == SnapshotDate(seconds: 7, nanoseconds: 8))
        }
        #expect(image.snapshots.map(\.id) == ["1", "2", "3", "4", "5"])
        // By index, where no selector tells them apart.
        #expect(try image.applySnapshot(at: 3).id == "4")
        #expect(throws: QCOW2Error.self) { try image.applySnapshot(.name("first")) }
    }

    @Test("A selector means one snapshot, or is refused")
    func selectors() throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2")))
        try image.createSnapshot(named: "1")
        try image.createSnapshot(named: "3")
        #expect(try image.snapshot(.id("1")).name == "first")
        #expect(try image.snapshot(.name("1")).id == "2")
        // Its own ID is its name.
        #expect(try image.snapshot(.idOrName("3")).id == "3")
        #expect(try image.snapshot(SnapshotSelector(parsing: "name:1")).id == "2")
        #expect(try image.snapshot(SnapshotSelector(parsing: "id:1")).id == "1")
        for (selector, code) in [
            (SnapshotSelector.idOrName("1"), QCOW2Error.Code.ambiguousSnapshot), (.name("no"), .noSuchSnapshot),
            (.id("first"), .noSuchSnapshot), (.idOrName(""), .noSuchSnapshot),
        ] {
            let error = #expect(throws: QCOW2Error.self) { try image.snapshot(selector) }
            #expect(error?.code == code)
        }
        let message = #expect(throws: QCOW2Error.self) { try image.deleteSnapshots([.idOrName("1")]) }?.message ?? ""
        #expect(message.contains("id:1") && message.contains("id:2"))
    }

    private func entry(id: [UInt8], name: [UInt8]) -> SnapshotTableEntry {
        SnapshotTableEntry(id: id, name: name, seconds: 0, nanoseconds: 0, diskSize: 0)
    }
}
