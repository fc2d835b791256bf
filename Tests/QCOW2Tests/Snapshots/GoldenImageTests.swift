// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// The verbs on images that real tools made, without the tools.
@Suite struct GoldenImageTests {
    static let names = [
        "v2-512", "v3-512", "v3-512-refcount2", "v3-512-refcount4", "v3-512-refcount8", "v3-512-refcount32",
        "v3-512-refcount64", "v3-4k", "v3-4k-zstd", "v3-16k-extended",
    ]

    private func open(_ name: String) throws -> Image<InMemoryStorage> {
        try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2")))
    }

    @Test("Listing says what qemu-img stored", arguments: names)
    func list(_ name: String) throws {
        let image = try open(name)
        let snapshots = image.snapshots
        #expect(snapshots.map(\.id) == ["1"])
        #expect(snapshots.map(\.name) == ["first"])
        #expect(snapshots.first?.diskSize == UInt64(24 * image.clusterSize))
        #expect(snapshots.first?.vmStateSize == 0)
    }

    @Test("States come back after create, apply and delete", arguments: names)
    func verbs(_ name: String) throws {
        var image = try open(name)
        let unit = image.clusterSize
        let first = try image.read(24 * unit, at: GuestOffset(0), of: .snapshot(.name("first")))
        let active = try image.read(24 * unit, at: GuestOffset(0))
        #expect(first.prefix(4 * unit).allSatisfy { $0 == 0x11 })
        #expect(active[unit] == 0x22 && active[0] == 0x11)

        try image.applySnapshot(.name("first"), savingCurrentAs: "second")
        #expect(try image.read(24 * unit, at: GuestOffset(0)) == first)
        #expect(try image.read(24 * unit, at: GuestOffset(0), of: .snapshot(.id("2"))) == active)

        try image.deleteSnapshots([.name("first")])
        #expect(try image.read(24 * unit, at: GuestOffset(0)) == first)
        try image.applySnapshot(.name("second"))
        try image.renameSnapshot(.name("second"), to: "last")
        try image.deleteSnapshots([.name("last")])
        #expect(try image.read(24 * unit, at: GuestOffset(0)) == active)
        #expect(image.snapshots.isEmpty)
    }

    @Test("A refcount that would overflow is refused before the first write")
    func overflow() throws {
        var image = try open("v3-512-refcount1")
        let error = #expect(throws: QCOW2Error.self) { try image.createSnapshot(named: "too-much") }
        #expect(error?.code == .limitExceeded)
        #expect(image.close().journal.isEmpty)
    }
}
