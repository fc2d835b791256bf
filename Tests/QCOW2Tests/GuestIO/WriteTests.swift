// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Bytes of the parts of a cluster that can be mapped one by one.
func unitSize(_ image: borrowing Image<InMemoryStorage>) -> Int {
    image.incompatibleFeatures.contains(.extendedL2) ? image.clusterSize / 32 : image.clusterSize
}

@Suite struct WriteTests {
    /// Changes of every kind in the first clusters, which a snapshot shares, and behind them.
    static func changes(_ unit: Int, _ byteCount: Int) -> [GuestChange] {
        [
            .write(seed: 1, at: 0, count: unit), .write(seed: 2, at: unit + 100, count: 300),
            .write(seed: 3, at: 2 * unit - 50, count: unit), .zeros(at: 3 * unit + 7, count: unit),
            .write(seed: 4, at: 5 * unit, count: 3 * unit), .discard(at: 6 * unit, count: unit),
            .zeros(at: 8 * unit, count: 2 * unit), .write(seed: 5, at: 8 * unit + 5, count: 9),
            .write(seed: 6, at: byteCount - 1, count: 1), .discard(at: 10 * unit, count: 6 * unit),
            .write(seed: 7, at: 11 * unit, count: 600),
        ]
    }

    @Test("Writes are read back at once and after reopening, and no snapshot changes", arguments: Specimen.all)
    func content(_ specimen: Specimen) throws {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        let old = try Contents(of: image)
        var model = old.states[0]
        for change in Self.changes(image.clusterSize, model.count) {
            try change.perform(on: &image)
            change.apply(to: &model, unit: unitSize(image))
            #expect(try image.read(model.count, at: GuestOffset(0)) == model, "\(change)")
        }
        let hadWrites = image.hasUnflushedWrites
        try image.flush()
        let hasWrites = image.hasUnflushedWrites
        #expect(hadWrites && !hasWrites)
        for state in [try Contents(of: image), try Contents(of: image.close().bytes)] {
            #expect(state.states[0] == model)
            #expect(state.states.dropFirst() == old.states.dropFirst())
        }
    }

    @Test("What isn't flushed is lost with the image, but hurts nothing", arguments: Specimen.all)
    func unflushed(_ specimen: Specimen) throws {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        let old = try Contents(of: image)
        for change in Self.changes(image.clusterSize, old.states[0].count) { try change.perform(on: &image) }
        let bytes = image.close().bytes
        #expect(try Contents(of: bytes).states.dropFirst() == old.states.dropFirst())
        #expect(ConsistencyCount(bytes).findings.isEmpty)
    }

    @Test("Overwriting what is private costs one flush and no metadata")
    func inPlace() throws {
        var new = NewImage(virtualSize: 64 << 10)
        new.clusterSize = 4096
        var image = try Image.create(new, in: InMemoryStorage([]))
        try image.write([UInt8](repeating: 1, count: 8192), at: GuestOffset(4096))
        try image.flush()
        let before = image.close()
        image = try Image(storage: InMemoryStorage(before.bytes))
        try image.write([UInt8](repeating: 2, count: 600), at: GuestOffset(7000))
        try image.flush()
        let journal = image.close().journal
        #expect(journal.count == 2)
        #expect(journal.last == .flush)
    }

    @Test("Make, fill, snapshot, change, apply, resize and read, in one program")
    func wholeLife() throws {
        var new = NewImage(virtualSize: 1 << 20)
        new.clusterSize = 1024
        var image = try Image.create(new, in: InMemoryStorage([]))
        try image.write([UInt8](repeating: 0x11, count: 100_000), at: GuestOffset(1000))
        try image.createSnapshot(named: "first")
        try image.write([UInt8](repeating: 0x22, count: 50_000), at: GuestOffset(2000))
        try image.createSnapshot(named: "second")
        try image.discard(at: GuestOffset(0), count: 1 << 20)
        #expect(try image.read(1 << 20, at: GuestOffset(0)).allSatisfy { $0 == 0 })
        try image.resize(to: 2 << 20)
        try image.write([0x33], at: GuestOffset((2 << 20) - 1))
        try image.applySnapshot(.name("first"), savingCurrentAs: "third")
        #expect(image.virtualSize == 1 << 20)
        try image.deleteSnapshots([.name("second")])
        #expect(try image.read(1, at: GuestOffset(3000)) == [0x11])
        #expect(try image.read(1, at: GuestOffset((2 << 20) - 1), of: .snapshot(.name("third"))) == [0x33])
        #expect(ConsistencyCount(image.close().bytes).findings.isEmpty)
    }

    @Test("A small budget commits in between", arguments: [512, 65536])
    func budget(_ clusterSize: Int) throws {
        var new = NewImage(virtualSize: 32 << 20)
        new.clusterSize = clusterSize
        var image = try Image.create(new, in: InMemoryStorage([]))
        image.guestWriteOptions.cacheBudget = 2 * clusterSize
        for index in stride(from: 0, to: 32 << 20, by: 1 << 20) {
            try image.write([UInt8](repeating: UInt8(index >> 20) | 1, count: 3000), at: GuestOffset(UInt64(index)))
        }
        try image.flush()
        for index in stride(from: 0, to: 32 << 20, by: 1 << 20) {
            #expect(try image.read(1, at: GuestOffset(UInt64(index) + 2999)) == [UInt8(index >> 20) | 1])
        }
        let storage = image.close()
        #expect(storage.journal.count { $0 == .flush } > 6)
        #expect(ConsistencyCount(storage.bytes).findings.isEmpty)
    }

    @Test("Clusters that a commit freed are used again")
    func reuse() throws {
        var new = NewImage(virtualSize: 256 << 10)
        new.clusterSize = 512
        var image = try Image.create(new, in: InMemoryStorage([]))
        try image.write([UInt8](repeating: 1, count: 256 << 10), at: GuestOffset(0))
        try image.flush()
        try image.write([UInt8](repeating: 2, count: 1), at: GuestOffset(0))
        try image.discard(at: GuestOffset(512), count: 512)
        try image.flush()
        let storage = image.close()
        let length = storage.bytes.count
        image = try Image(storage: InMemoryStorage(storage.bytes))
        for round in 0..<50 {
            try image.discard(at: GuestOffset(1024), count: 20 * 512)
            try image.flush()
            try image.write([UInt8](repeating: UInt8(round), count: 20 * 512), at: GuestOffset(1024))
            try image.flush()
        }
        // Room for one more set of tables and of data, not for fifty.
        #expect(image.close().bytes.count <= length + 60 * 512)
    }

    @Test("Copied flags that lie don't lead into a snapshot's clusters")
    func lyingFlags() throws {
        var file = ImageBytes(bytes: Specimen.all.first { $0.testDescription == "v3-512" }?.bytes ?? [])
        let l1 = Int(file.number(at: 40))
        let l2 = Int(file.number(at: l1) & 0x00FF_FFFF_FFFF_FE00)
        file.set(file.number(at: l1) | 1 << 63, at: l1)
        for index in 0..<4 { file.set(file.number(at: l2 + index * 8) | 1 << 63, at: l2 + index * 8) }
        var image = try Image(storage: InMemoryStorage(file.bytes))
        let old = try Contents(of: image)
        try image.write([UInt8](repeating: 0xEE, count: 2048), at: GuestOffset(0))
        try image.flush()
        let new = try Contents(of: image)
        #expect(new.states[0].prefix(2048).allSatisfy { $0 == 0xEE })
        #expect(new.states.dropFirst() == old.states.dropFirst())
    }
}

/// What guest writes refuse, before they change anything.
@Suite struct WriteRefusalTests {
    private func refuse(
        _ file: ImageBytes, _ code: QCOW2Error.Code, isWritable: Bool = true,
        location: SourceLocation = #_sourceLocation,
        body: (inout Image<InMemoryStorage>) throws -> Void = { image in
            try image.write([1], at: GuestOffset(0))
        }
    ) throws {
        var image = try Image(storage: InMemoryStorage(file.bytes, isWritable: isWritable))
        let error = #expect(throws: QCOW2Error.self, sourceLocation: location) { try body(&image) }
        #expect(error?.code == code, sourceLocation: location)
        #expect(image.close().journal.isEmpty, sourceLocation: location)
    }

    private let plain = ImageBytes(bytes: (try? Fixtures.bytes("v3-512.qcow2")) ?? [])

    private func patched(_ bit: UInt64, at offset: Int) -> ImageBytes {
        var file = plain
        file.set(file.number(at: offset) | bit, at: offset)
        return file
    }

    @Test func images() throws {
        try refuse(plain, .readOnly, isWritable: false)
        try refuse(patched(1, at: 72), .needsRepair)
        try refuse(patched(2, at: 72), .needsRepair)
        try refuse(patched(4, at: 72), .unsupported)
        var encrypted = plain
        encrypted.set(1, 4, at: 32)
        try refuse(encrypted, .unsupported)
        try refuse(encrypted, .unsupported) { try $0.discard(at: GuestOffset(0), count: 512) }
        // Refcounts that are all zero: everything would look free.
        var uncounted = plain
        let block = Int(uncounted.number(at: Int(uncounted.number(at: 48))))
        uncounted.set([UInt8](repeating: 0, count: 512), at: block)
        try refuse(uncounted, .corrupt)
        try refuse(ImageBytes(bytes: Fixtures.bytes("v3-512-bitmaps.qcow2")), .activeBitmaps)
    }

    @Test func ranges() throws {
        let size = plain.number(at: 24)
        try refuse(plain, .outsideDisk) { try $0.write([1], at: GuestOffset(size)) }
        try refuse(plain, .outsideDisk) { try $0.write([1, 2], at: GuestOffset(size - 1)) }
        try refuse(plain, .outsideDisk) { try $0.write([1], at: GuestOffset(.max)) }
        try refuse(plain, .outsideDisk) { try $0.writeZeros(at: GuestOffset(1), count: .max) }
        try refuse(plain, .outsideDisk) { try $0.discard(at: GuestOffset(512), count: size) }
        // Nothing is done for nothing.
        var image = try Image(storage: InMemoryStorage(plain.bytes))
        try image.write([], at: GuestOffset(size))
        try image.discard(at: GuestOffset(0), count: 0)
        try image.flush()
        #expect(image.close().journal.isEmpty)
    }

    @Test("Over a backing file, whole clusters are written, and parts only with a reader", arguments: [false, true])
    func backing(_ hasExtendedL2: Bool) throws {
        var new = NewImage(virtualSize: (1 << 20) + 512)
        new.hasExtendedL2 = hasExtendedL2
        new.clusterSize = 16384
        new.backingFile = NewImage.BackingFile(name: "base.raw", format: "raw")
        let unit = hasExtendedL2 ? 512 : 16384
        let created = try Image.create(new, in: InMemoryStorage([])).close().bytes
        func refuse(_ body: (inout Image<InMemoryStorage>) throws -> Void) throws {
            try self.refuse(ImageBytes(bytes: created), .backingFileNotAllowed, body: body)
        }
        try refuse { try $0.write([1], at: GuestOffset(5)) }
        try refuse { try $0.write([UInt8](repeating: 1, count: unit + 1), at: GuestOffset(0)) }
        try refuse { try $0.writeZeros(at: GuestOffset(1), count: UInt64(unit)) }

        var model = (0..<((1 << 20) + 512)).map { UInt8(truncatingIfNeeded: $0 >> 8 | 1) }
        let base = model
        var image = try Image(storage: InMemoryStorage(created))
        image.guestWriteOptions.backingReader = { offset, count in
            Array(base[Int(offset.rawValue)..<(Int(offset.rawValue) + count)])
        }
        let changes: [GuestChange] = [
            .write(seed: 1, at: 5, count: 700), .write(seed: 2, at: 30_000, count: 40_000),
            .zeros(at: 100_001, count: 30_000), .discard(at: 200_000, count: 100_000),
            .write(seed: 3, at: model.count - 3, count: 2), .write(seed: 4, at: 210_000, count: 5),
            .zeros(at: 600_000, count: 3), .discard(at: 900_000, count: model.count - 900_000),
        ]
        for change in changes {
            try change.perform(on: &image)
            change.apply(to: &model, unit: unit)
        }
        try image.flush()
        // Where nothing was written the backing file still shows, which reading refuses.
        for start in stride(from: 0, to: model.count, by: 512) {
            let bytes = try? image.read(512, at: GuestOffset(UInt64(start)))
            #expect((bytes ?? Array(base[start..<(start + 512)])) == Array(model[start..<(start + 512)]), "\(start)")
        }
        #expect(ConsistencyCount(image.close().bytes).findings.isEmpty)
    }
}
