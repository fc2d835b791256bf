// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import TestTools
import Testing

@Suite struct ResizeTests {
    /// Images whose disks can be resized: in version 2, only without snapshots.
    static let specimens: [Specimen] = Specimen.all.compactMap { specimen in
        do {
            var image = try Image(storage: InMemoryStorage(specimen.bytes))
            if image.version == 2 { try image.deleteSnapshots(image.snapshots.map { .id($0.id) }) }
            return Specimen(testDescription: specimen.testDescription, bytes: image.close().bytes)
        } catch {
            Issue.record(error)
            return nil
        }
    }

    /// By how many bytes the disk's size changes: within a cluster, by many L2 tables, and to almost nothing.
    static let changes = [-7 << 20, -1536, -512, 512, 1536, 150_000]

    private func newSize(_ change: Int, _ old: Int) -> Int { max(512, old + change) & ~511 }

    @Test("What stays is unchanged, and what is added reads as zeros", arguments: specimens, changes)
    func content(_ specimen: Specimen, _ change: Int) throws {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        let old = try Contents(of: image)
        let size = newSize(change, old.states[0].count)
        try image.resize(to: UInt64(size), allowingDataLoss: true, bitmaps: .drop)
        #expect(image.virtualSize == UInt64(size))
        let expected =
            Array(old.states[0].prefix(size)) + [UInt8](repeating: 0, count: max(0, size - old.states[0].count))
        image = try checked(image, expected, old)

        // Back again: nothing of what was cut off comes back.
        let largest = UInt64(max(size, old.states[0].count) + 70_144)
        try image.resize(to: largest, bitmaps: .drop)
        _ = try checked(image, expected + [UInt8](repeating: 0, count: Int(largest) - expected.count), old).close()
    }

    private func checked(
        _ image: consuming Image<InMemoryStorage>, _ active: [UInt8], _ old: Contents
    ) throws -> Image<InMemoryStorage> {
        let contents = try Contents(of: image)
        #expect(contents.states[0] == active)
        #expect(contents.states.dropFirst() == old.states.dropFirst())
        #expect(contents.names == old.names)
        let bytes = image.close().bytes
        #expect(ConsistencyCount(bytes).findings.isEmpty)
        return try Image(storage: InMemoryStorage(bytes))
    }

    @Test(
        "A crash leaves the old size or the new one, whole",
        arguments: specimens.filter { !$0.testDescription.contains("refcount8") }, [-1536, 1536])
    func crash(_ specimen: Specimen, _ change: Int) throws {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        let old = try Contents(of: image)
        try image.resize(
            to: UInt64(newSize(change, old.states[0].count)), allowingDataLoss: true, bitmaps: .drop)
        let new = try Contents(of: image)
        let storage = image.close()
        #expect(storage.journal.count { $0 == .flush } == 2)
        let states = CrashStates(
            of: specimen.bytes, storage.journal, randomStatesPerGroup: CrashTests.randomStatesPerGroup, seed: 4)
        var outcomes: [Contents: Int] = [:]
        try states.forEach { bytes, description in
            let contents = try Contents(of: bytes)
            outcomes[contents, default: 0] += 1
            #expect(contents == old || contents == new, "\(description)")
            let findings = ConsistencyCount(bytes).findings
            #expect(findings.isEmpty, "\(description)")
        }
        #expect(outcomes.count == 2)
    }

    @Test("A resize that is refused writes nothing")
    func refusals() throws {
        func refuse(
            _ name: String, _ code: QCOW2Error.Code, _ body: (inout Image<InMemoryStorage>) throws -> Void
        ) throws {
            let bytes = try Fixtures.bytes("\(name).qcow2")
            var image = try Image(storage: InMemoryStorage(bytes))
            let error = #expect(throws: QCOW2Error.self, "\(name)") { try body(&image) }
            #expect(error?.code == code, "\(name)")
            #expect(image.close().journal.isEmpty, "\(name)")
        }
        try refuse("v3-512", .wouldLoseData) { try $0.resize(to: 512) }
        try refuse("v3-512", .unsupported) { try $0.resize(to: 513, allowingDataLoss: true) }
        try refuse("v3-512", .limitExceeded) { try $0.resize(to: 1 << 63) }
        try refuse("v3-512", .limitExceeded) { try $0.resize(to: 129 << 30) }
        try refuse("v2-512", .unsupported) { image in try image.resize(to: image.virtualSize) }
        try refuse("v2-512", .unsupported) { try $0.resize(to: 1 << 30) }
        try refuse("v3-512-bitmaps", .activeBitmaps) { try $0.resize(to: 1 << 30) }
        var image = try Image(storage: InMemoryStorage(Specimen.all.first?.bytes ?? [], isWritable: false))
        let error = #expect(throws: QCOW2Error.self) { try image.resize(to: 1 << 30) }
        #expect(error?.code == .readOnly)
    }

    @Test("Growing over a backing file hides what it has there, or is refused", arguments: [false, true])
    func backing(_ hasExtendedL2: Bool) throws {
        var new = NewImage(virtualSize: 64 << 10)
        new.clusterSize = 16384
        new.hasExtendedL2 = hasExtendedL2
        new.backingFile = NewImage.BackingFile(name: "base.raw", format: "raw")
        let sizes = [(64 << 10, 1 << 20), (64 << 10, 300 << 20)] as [(UInt64, UInt64)]
        for (old, size) in sizes {
            new.virtualSize = old
            var image = try Image.create(new, in: InMemoryStorage([]))
            try image.resize(to: size)
            #expect(try image.read(Int(512), at: GuestOffset(old)).allSatisfy { $0 == 0 })
            #expect(try image.read(Int(512), at: GuestOffset(size - 512)).allSatisfy { $0 == 0 })
            #expect(throws: QCOW2Error.self) { try image.read(512, at: GuestOffset(old - 512)) }
            #expect(ConsistencyCount(image.close().bytes).findings.isEmpty)
        }
        // A file that is known to be shorter needs no hiding.
        var image = try Image.create(new, in: InMemoryStorage([]))
        try image.resize(to: 300 << 20, backingSize: 64 << 10)
        #expect(image.close().bytes.count < 256 << 10)

        new.virtualSize = 512
        image = try Image.create(new, in: InMemoryStorage([]))
        if hasExtendedL2 {
            // The end of a subcluster, if not of the cluster.
            try image.resize(to: 1 << 20)
            #expect(try image.read(512, at: GuestOffset(512)).allSatisfy { $0 == 0 })
            #expect(throws: QCOW2Error.self) { try image.read(512, at: GuestOffset(0)) }
        } else {
            let error = #expect(throws: QCOW2Error.self) { try image.resize(to: 1 << 20) }
            #expect(error?.code == .backingFileNotAllowed)
        }
    }
}
