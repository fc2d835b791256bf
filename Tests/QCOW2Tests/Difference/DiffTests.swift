// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import TestTools
import Testing

@testable import QCOW2

/// What changed between states of small images, by metadata and by data.
@Suite struct DiffTests {
    @Test("Every pair of states differs where their bytes do", arguments: Specimen.all)
    func specimens(_ specimen: Specimen) throws {
        let contents = try Contents(of: specimen.bytes)
        let image = try Image(storage: InMemoryStorage(specimen.bytes, isWritable: false))
        let states = [DiskState.active] + image.snapshots.map { .snapshot(.id($0.id)) }
        let reader = try ImageReader(image)
        for new in states.indices {
            let later = (states[new], contents.states[new])
            #expect(try diffDefects(of: reader, from: nil, to: later) == [], "all of \(states[new])")
            for old in states.indices {
                let earlier = (states[old], contents.states[old])
                #expect(try diffDefects(of: reader, from: earlier, to: later) == [], "\(states[old]) to \(states[new])")
            }
        }
    }

    /// Two states of 70 clusters of 512 bytes, with one L2 table in common and one each.
    private static func image(backing: Bool = false, _ change: (inout ImageBytes, Int) -> Void) throws -> ImageBytes {
        var builder = ImageBuilder(size: 70 * 512)
        builder.fill(70)
        let l1Table = builder.take()
        let l2Table = builder.take()
        var snapshot = RawSnapshot()
        snapshot.l1TableOffset = l1Table
        snapshot.l1EntryCount = 2
        snapshot.extra = RawSnapshot.extra(0, 70 * 512, .max)
        builder.setSnapshots([snapshot])
        var file = builder.finished()
        let active = Int(file.number(at: 40))
        let tables = (0..<2).map { file.number(at: active + 8 * $0) & ~(1 << 63) }
        file.set(tables[0], at: l1Table)
        file.set(UInt64(l2Table), at: l1Table + 8)
        for index in 0..<6 {
            file.set(file.number(at: Int(tables[1]) + 8 * index) & ~(1 << 63), at: l2Table + 8 * index)
        }
        if backing {
            file.set(200, at: 8)
            file.set(4, 4, at: 16)
            file.set(Array("base".utf8), at: 200)
        }
        change(&file, l2Table)
        return file
    }

    private func extents(_ file: ImageBytes) throws -> [ChangedExtent] {
        let bytes = file.bytes
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        var extents: [ChangedExtent] = []
        try image.diff(from: .snapshot(.id("1"))) { extents.append($0) }
        return extents
    }

    @Test("Tables that say the same, but for copied flags, don't differ")
    func same() throws {
        #expect(try extents(Self.image { _, _ in }).isEmpty)
    }

    @Test("Only L2 tables that differ are read")
    func cost() throws {
        let bytes = try Self.image { _, _ in }.bytes
        let storage = CountingStorage(bytes)
        let tally = storage.tally
        let image = try Image(storage: storage)
        tally.requestedByteCount = 0
        try image.diff(from: .snapshot(.id("1"))) { _ in }
        // Two L1 tables of two entries, and one L2 table for each side.
        #expect(tally.requestedByteCount == 2 * 16 + 2 * 512)
        tally.requestedByteCount = 0
        try image.diff(from: .active) { _ in }
        #expect(tally.requestedByteCount == 2 * 16)
    }

    @Test("Zeros equal what isn't allocated, unless a backing file shows through", arguments: [false, true])
    func zeros(_ backing: Bool) throws {
        let file = try Self.image(backing: backing) { file, l2Table in
            let active = Int(file.number(at: Int(file.number(at: 40)) + 8) & ~(1 << 63))
            // Data that became zeros; zeros that became unallocated, and the other way round; data that was given up.
            file.set(1, at: active)
            file.set(1, at: l2Table + 8)
            file.set(0, at: active + 8)
            file.set(0, at: l2Table + 16)
            file.set(1, at: active + 16)
            file.set(0, at: active + 24)
        }
        func extent(_ cluster: UInt64, _ kind: ChangedExtent.Kind) -> ChangedExtent {
            ChangedExtent(start: GuestOffset(cluster * 512), byteCount: 512, kind: kind)
        }
        #expect(
            try extents(file)
                == (backing
                    ? [extent(64, .zero), extent(65, .backing), extent(66, .zero), extent(67, .backing)]
                    : [extent(64, .zero), extent(67, .zero)]))
    }

    @Test("What only one disk has is changed or gone")
    func sizes() throws {
        let snapshotSize = 65 * 512 + 100
        var file = try Self.image { _, _ in }
        let table = Int(file.number(at: 64))
        file.set(UInt64(snapshotSize), at: table + 48)
        let image = try Image(storage: InMemoryStorage(file.bytes, isWritable: false))
        var extents: [ChangedExtent] = []
        let grown = try image.diff(from: .snapshot(.id("1"))) { extents.append($0) }
        let rest = UInt64(70 * 512 - snapshotSize)
        let start = GuestOffset(UInt64(snapshotSize))
        #expect(extents == [ChangedExtent(start: start, byteCount: rest, kind: .data)])
        #expect(
            grown == DiskDifference(oldSize: start.rawValue, newSize: 70 * 512, changedByteCount: rest, extentCount: 1))
        extents = []
        try image.diff(from: .active, to: .snapshot(.id("1"))) { extents.append($0) }
        #expect(extents == [ChangedExtent(start: start, byteCount: rest, kind: .gone)])
    }

    @Test("A disk size that no table reaches is refused before anything is compared")
    func hugeSize() throws {
        var file = try Self.image { _, _ in }
        let table = Int(file.number(at: 64))
        file.set(1 << 62, at: table + 48)
        let image = try Image(storage: InMemoryStorage(file.bytes, isWritable: false))
        let error = #expect(throws: QCOW2Error.self) {
            try image.diff(from: .active, to: .snapshot(.id("1"))) { _ in Issue.record("something was compared") }
        }
        #expect(error?.code == .corrupt && error?.message.contains("needs more than the 2 entries") == true)
    }

    @Test("An entry that can't be is refused where it differs")
    func corrupt() throws {
        var place = 0
        let file = try Self.image { file, l2Table in
            place = l2Table + 32
            file.set(0x00FF_0000_0000_0000, at: place)
        }
        let error = #expect(throws: QCOW2Error.self) { try extents(file) }
        #expect(error?.code == .corrupt)
        #expect(error?.offset == HostOffset(UInt64(place)))
    }

    @Test("What the closure throws ends the comparison, and so does a cancelled progress")
    func ends() throws {
        let bytes = try Self.image { file, l2Table in for index in 0..<6 { file.set(0, at: l2Table + 8 * index) } }
            .bytes
        let image = try Image(storage: InMemoryStorage(bytes))
        let thrown = #expect(throws: QCOW2Error.self) {
            try image.diff(from: .snapshot(.id("1"))) { _ throws(QCOW2Error) in throw QCOW2Error(.nameInUse, "mine") }
        }
        #expect(thrown?.code == .nameInUse)
        let cancelled = #expect(throws: QCOW2Error.self) {
            try image.diff(from: .snapshot(.id("1")), progress: { _ in false }) { _ in }
        }
        #expect(cancelled?.code == .cancelled)
        let missing = #expect(throws: QCOW2Error.self) { try image.diff(from: .snapshot(.id("9"))) { _ in } }
        #expect(missing?.code == .noSuchSnapshot)
    }

    @Test("The stream has the bytes that the format says")
    func stream() throws {
        let bytes = try Self.image { file, l2Table in
            let active = Int(file.number(at: Int(file.number(at: 40)) + 8) & ~(1 << 63))
            file.set(1, at: active)
            file.set(0, at: l2Table + 8)
        }.bytes
        let reader = try ImageReader(Image(storage: InMemoryStorage(bytes)))
        var stream: [UInt8] = []
        try reader.exportRBDDiff(from: .snapshot(.id("1"))) { bytes in
            for index in bytes.indices { stream.append(bytes[index]) }
        }
        func number(_ value: UInt64, _ count: Int = 8) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        }
        var expected = Array("rbd diff v1\nf".utf8) + number(2, 4) + Array("s1".utf8)
        expected += Array("s".utf8) + number(70 * 512)
        expected += Array("z".utf8) + number(64 * 512) + number(512)
        expected += Array("w".utf8) + number(65 * 512) + number(512)
        // The builder numbers the data's clusters from 1, as big-endian words.
        expected += [0, 0, 0, 0, 0, 0, 0, 66] + [UInt8](repeating: 0, count: 504)
        expected += Array("e".utf8)
        #expect(stream == expected)
    }
}
