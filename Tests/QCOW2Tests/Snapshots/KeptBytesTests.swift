// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2Testing
import TestTools
import Testing

@testable import QCOW2

/// What isn't known is kept, but for autoclear features, which say that they want to be cleared.
@Suite struct KeptBytesTests {
    @Test(
        "Unknown autoclear bits go with the first write, compatible bits and unknown header bytes stay",
        arguments: Verb.allCases)
    func features(_ verb: Verb) throws {
        var bytes = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        bytes.set(1 << 7 | 1, at: 80)
        bytes.set(1 << 40 | 2 | 1, at: 88)
        // A longer header: the field that nobody knows, and the end of extensions behind it.
        bytes.set(128, 4, at: 100)
        bytes.set(0xABCD_EF01_2345_6789, at: 112)
        bytes.set(0x1122_3344, at: 448)
        var image = try Image(storage: InMemoryStorage(bytes.bytes))
        #expect(image.autoclearFeatures.rawValue == 1 << 40 | 2 | 1)
        try verb.perform(on: &image)
        #expect(image.autoclearFeatures.rawValue == 0)
        let written = ImageBytes(bytes: image.close().bytes)
        #expect(written.number(at: 80) == 1 << 7 | 1 && written.number(at: 88) == 0)
        #expect(written.number(at: 112) == 0xABCD_EF01_2345_6789 && written.number(at: 448) == 0x1122_3344)
        #expect(written.number(4, at: 100) == 128)
    }

    @Test("Trusted bitmaps stay trusted, until apply gives them up")
    func bitmaps() throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512-bitmaps.qcow2")))
        try image.createSnapshot(named: "second")
        try image.renameSnapshot(.name("second"), to: "other")
        try image.deleteSnapshots([.name("other")])
        #expect(image.autoclearFeatures == .bitmaps)
        let error = #expect(throws: QCOW2Error.self) { try image.applySnapshot(.name("first")) }
        #expect(error?.code == .activeBitmaps)
        try image.applySnapshot(.name("first"), bitmaps: .drop)
        #expect(image.autoclearFeatures == [])
        let findings = ConsistencyCount(image.close().bytes).findings
        #expect(findings.isEmpty)
    }

    @Test("Extra data and odd strings of other snapshots stay as they are")
    func extraData() throws {
        var builder = ImageBuilder(size: 8192)
        builder.fill(4)
        let extra = RawSnapshot.extra(7, 8192, 99) + [1, 2, 3, 4, 5]
        var odd = RawSnapshot()
        odd.extra = extra
        odd.id = [0xFF, 0x31]
        odd.name = [0x0A, 0xC3, 0x28]
        builder.setSnapshots([odd])
        var image = try Image(storage: InMemoryStorage(builder.finished().bytes))
        let date = SnapshotDate(seconds: 4_000_000_000, nanoseconds: 123_456_789)
        try image.createSnapshot(named: "new", date: date)
        try image.renameSnapshot(.name("new"), to: "renamed")
        let reopened = try Image(storage: InMemoryStorage(image.close().bytes))
        #expect(reopened.entries[0].unknownExtraData == [1, 2, 3, 4, 5])
        #expect(reopened.snapshots[0].icount == 99 && reopened.snapshots[0].vmStateSize == 7)
        #expect(reopened.snapshots[0].idBytes == odd.id && reopened.snapshots[0].nameBytes == odd.name)
        // Ours: size recorded, nanoseconds kept, no instruction count, an ID above what "\u{FF}1" counts for.
        let new = reopened.snapshots[1]
        #expect(new.id == "1" && new.name == "renamed" && new.date == date && new.diskSize == 8192)
        #expect(new.icount == nil && new.vmStateSize == 0 && new.vmClock == 0)
    }

    @Test("A disk size that is no multiple of a sector stays, and counts as rounded down")
    func oddSize() throws {
        var bytes = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        bytes.set(bytes.number(at: 24) - 100, at: 24)
        var image = try Image(storage: InMemoryStorage(bytes.bytes))
        try image.createSnapshot(named: "new")
        #expect(image.virtualSize == 12188 && image.snapshots[1].diskSize == 11776)
        try image.applySnapshot(.name("new"))
        #expect(image.virtualSize == 12188)
        try image.applySnapshot(.name("first"))
        #expect(image.virtualSize == 12288)
    }
}
