// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2Testing
import Testing

@testable import QCOW2

/// What the fuzzer found once.
@Suite struct FuzzedFileTests {
    @Test("Files that once failed are opened, checked and inspected with one verdict", arguments: Fixtures.crashNames)
    func crashes(_ name: String) throws {
        let bytes = try Fixtures.crash(name)
        let storage = CountingStorage(bytes, isWritable: false)
        let tally = storage.tally
        let inspection = try Inspection(of: storage)
        #expect(tally.changeCount == 0 && tally.requestedByteCount <= 12 * bytes.count + 4 << 20)
        do throws(QCOW2Error) {
            let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
            #expect(inspection.openingError == nil)
            #expect(inspection.snapshots.map(\.snapshot) == image.snapshots)
        } catch {
            #expect(inspection.openingError?.code == error.code)
        }
        do throws(QCOW2Error) {
            let image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
            _ = try image.check()
        } catch {
            #expect([.corrupt, .unsupported, .notQCOW2, .limitExceeded].contains(error.code), "\(error)")
        }
    }

    @Test("A file cut off in front of its backing file's name, or inside, is inspected")
    func cutOffName() throws {
        let bytes = try Fixtures.bytes("v3-512-backing.qcow2")
        for count in 0...512 {
            let inspection = try Inspection(of: InMemoryStorage(Array(bytes[..<count]), isWritable: false))
            for field in inspection.dump.flatMap(\.fields) {
                let start = Int(field.offset.rawValue)
                #expect(start + field.bytes.count <= count, "\(count): \(field)")
            }
        }
    }

    @Test("An entry of zeros that has extra data is a snapshot for opening and for inspecting")
    func zeroEntry() throws {
        var builder = ImageBuilder(size: 8192)
        builder.fill(2)
        builder.setSnapshots([RawSnapshot(id: [], name: [], seconds: 0, nanoseconds: 0, vmClock: 0)])
        let bytes = builder.finished().bytes
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        let inspection = try Inspection(of: InMemoryStorage(bytes, isWritable: false))
        #expect(image.snapshots.count == 1)
        #expect(inspection.openingError == nil)
        #expect(inspection.snapshots.map(\.snapshot) == image.snapshots)
    }

    @Test("Bitmap tables that all claim the rest of the file are read once")
    func overlappingBitmapTables() throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-512-bitmaps.qcow2"))
        let (directory, bitmapCount, byteCount) = (0x4000, 200, 1 << 20)
        image.grow(to: byteCount)
        for index in 0..<bitmapCount {
            let entry = directory + index * 32
            image.set(UInt64(0x8000 + index * 512), at: entry)
            image.set(0xFFFF_FFFF, 4, at: entry + 8)
            // Not in use; a dirty bitmap with a granularity of 64 KiB, and a name of one byte.
            image.set(0, 4, at: entry + 12)
            image.set(0x0110_0001, 4, at: entry + 16)
            image.set(0, 4, at: entry + 20)
            image.set([0x61], at: entry + 24)
        }
        // The record of the extension lies at 112.
        image.set(UInt64(bitmapCount), 4, at: 120)
        image.set(UInt64(bitmapCount * 32), at: 128)
        image.set(UInt64(directory), at: 136)
        let storage = CountingStorage(image.bytes, isWritable: false)
        let tally = storage.tally
        let inspection = try Inspection(of: storage)
        let tables = inspection.findings.filter { $0.code.rawValue == "bitmaps" }
        #expect(tables.first?.message.contains("There are \(bitmapCount) bitmaps") == true)
        #expect(tally.requestedByteCount <= 12 * byteCount, "\(tally.requestedByteCount)")
    }
}
