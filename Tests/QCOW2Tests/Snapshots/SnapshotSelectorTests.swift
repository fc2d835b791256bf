// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Selectors hold bytes, and compare them.
@Suite struct SnapshotSelectorTests {
    private func entry(id: String, name: String) -> SnapshotTableEntry {
        SnapshotTableEntry(id: Array(id.utf8), name: Array(name.utf8), seconds: 0, nanoseconds: 0, diskSize: 0)
    }

    static let merging = ["\u{301}", "\u{200D}", "\u{FE0F}", "\u{903}", "\u{E0101}"]

    @Test("What merges with the colon belongs to the ID or the name", arguments: merging)
    func parsing(_ mark: String) {
        for rest in [mark, "\(mark)x", "x\(mark)"] {
            #expect(SnapshotSelector(parsing: "id:\(rest)") == .id(rest))
            #expect(SnapshotSelector(parsing: "name:\(rest)") == .name(rest))
            #expect(SnapshotSelector(parsing: rest) == .idOrName(rest))
            #expect(SnapshotSelector.id(rest).matches(entry(id: rest, name: "")))
            #expect(SnapshotSelector(parsing: "id:\(rest)").matches(entry(id: rest, name: "x")))
            #expect(!SnapshotSelector(parsing: "id:\(rest)").matches(entry(id: "x", name: rest)))
            #expect(SnapshotSelector(parsing: "name:\(rest)").matches(entry(id: "x", name: rest)))
            #expect(!SnapshotSelector(parsing: "name:\(rest)").matches(entry(id: rest, name: "x")))
        }
        // A mark before the colon makes it another word.
        #expect(SnapshotSelector(parsing: "id\(mark):x") == .idOrName("id\(mark):x"))
    }

    @Test("Selectors are equal when their bytes are")
    func equality() {
        let twins = ("\u{E9}", "e\u{301}")
        #expect(SnapshotSelector.name(twins.0) != .name(twins.1))
        #expect(Set([SnapshotSelector.id(twins.0), .id(twins.1)]).count == 2)
        #expect(DiskState.snapshot(.name(twins.0)) != .snapshot(.name(twins.1)))
        #expect(SnapshotSelector.name("1") != .id("1"))
    }

    @Test("Bytes that aren't UTF-8 select, too")
    func anyBytes() {
        let odd: [UInt8] = [0x61, 0xFF, 0xC3]
        let entry = SnapshotTableEntry(id: odd, name: [0xFE], seconds: 0, nanoseconds: 0, diskSize: 0)
        #expect(SnapshotSelector(.idOrName, bytes: odd).matches(entry))
        #expect(SnapshotSelector(parsing: Array("id:".utf8) + odd).matches(entry))
        #expect(SnapshotSelector(parsing: Array("name:".utf8) + [0xFE]) == SnapshotSelector(.name, bytes: [0xFE]))
        #expect(!SnapshotSelector(.name, bytes: odd).matches(entry))
    }
}
