// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import Synchronization
import Testing

/// Views of images that real tools made: "first" of 0x11, then 0x22 in the active state.
@Suite struct DiskViewTests {
    static let names = GoldenImageTests.names
    static let unitCount = 24

    private func reader(_ name: String, cacheByteCount: Int = 8 << 20) throws -> ImageReader<InMemoryStorage> {
        let image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2"), isWritable: false))
        return try ImageReader(image, cacheByteCount: cacheByteCount)
    }

    /// What `make-fixtures.sh` wrote, cluster by cluster.
    private func model(_ name: String, _ unit: Int, isActive: Bool) -> [UInt8] {
        let isCompressed = !["v3-512-refcount2", "v3-512-refcount4"].contains(name)
        return (0..<Self.unitCount).flatMap { cluster in
            let byte: UInt8 =
                switch cluster {
                case 1 where isActive: 0x22
                case 0..<4: 0x11
                case 8..<12 where isCompressed: UInt8(cluster)
                default: 0
                }
            return [UInt8](repeating: byte, count: unit)
        }
    }

    @Test("Every state reads as it was written, at any offset and length", arguments: names)
    func content(_ name: String) throws {
        let reader = try reader(name)
        let unit = reader.image.clusterSize
        for (state, isActive) in [(DiskState.active, true), (.snapshot(.name("first")), false)] {
            let view = try reader.view(of: state)
            let model = model(name, unit, isActive: isActive)
            #expect(view.virtualSize == UInt64(model.count))
            #expect(try view.read(model.count, at: GuestOffset(0)) == model)
            var random = SystemRandomNumberGenerator()
            for _ in 0..<200 {
                let start = Int.random(in: 0...model.count, using: &random)
                let count = Int.random(in: 0...min(model.count - start, 3 * unit), using: &random)
                let bytes = try view.read(count, at: GuestOffset(UInt64(start)))
                #expect(bytes == Array(model[start..<(start + count)]), "\(count) bytes at \(start)")
            }
        }
        #expect(try reader.view(ofSnapshotAt: 0).virtualSize == UInt64(Self.unitCount * unit))
    }

    @Test("More than there is, or than memory holds, is an error and not the end of the process")
    func tooMuch() throws {
        let reader = try reader("v3-512")
        let view = try reader.view()
        for count in [1 << 50, Int.max, 1 << 31] {
            for offset in [0, 512, UInt64(Int.max), UInt64.max] {
                for state in [DiskState.active, .snapshot(.name("first"))] {
                    let error = #expect(throws: QCOW2Error.self) {
                        _ = try reader.image.read(count, at: GuestOffset(offset), of: state)
                    }
                    #expect(error?.code == .outsideDisk)
                }
                let error = #expect(throws: QCOW2Error.self) { _ = try view.read(count, at: GuestOffset(offset)) }
                #expect(error?.code == .outsideDisk)
            }
        }
        let negative = #expect(throws: QCOW2Error.self) { _ = try reader.image.read(-1, at: GuestOffset(0)) }
        #expect(negative?.code == .outsideDisk)
        // A disk that has them all.
        let huge = try ImageReader(Image.create(NewImage(virtualSize: 1 << 50), in: InMemoryStorage([])))
        for count in [1 << 50, (1 << 31) + 1] {
            for body in [
                { _ = try huge.image.read(count, at: GuestOffset(0)) },
                { _ = try huge.view().read(count, at: GuestOffset(0)) },
            ] {
                let error = #expect(throws: QCOW2Error.self) { try body() }
                #expect(error?.code == .limitExceeded)
            }
        }
    }

    @Test("Extents cover the disk without a gap, and say what each part reads as", arguments: names)
    func extents(_ name: String) throws {
        let reader = try reader(name)
        let unit = reader.image.clusterSize
        let view = try reader.view()
        let model = model(name, unit, isActive: true)
        var end: UInt64 = 0
        var last: Extent?
        try view.forEachExtent { extent throws(QCOW2Error) in
            #expect(extent.start.rawValue == end && extent.byteCount > 0 && extent.depth == 0)
            end = extent.end.rawValue
            let bytes = model[Int(extent.start.rawValue)..<Int(end)]
            switch extent.kind {
            case .zero, .unallocated: #expect(bytes.allSatisfy { $0 == 0 })
            case .compressed: #expect(bytes.allSatisfy { (8..<12).contains($0) } && extent.hostOffset == nil)
            case .data: #expect(bytes.allSatisfy { $0 == 0x11 || $0 == 0x22 } && extent.hostOffset != nil)
            case .unopened: Issue.record("there is no backing file")
            }
            #expect(last?.kind != extent.kind || extent.hostOffset != nil)
            last = extent
        }
        #expect(end == view.virtualSize)
        // A range is cut at its ends, and at the disk's.
        var cursor = view.extents(in: GuestOffset(UInt64(unit) + 7)..<GuestOffset(UInt64(unit) + 9))
        let part = try cursor.next()
        #expect(part?.start == GuestOffset(UInt64(unit) + 7) && part?.byteCount == 2 && part?.kind == .data)
        #expect(try cursor.next() == nil)
        var outside = view.extents(in: GuestOffset(end)..<GuestOffset(end + 1))
        #expect(try outside.next() == nil)
    }

    @Test("What isn't inside the disk is an error, and an empty range isn't")
    func outside() throws {
        let view = try reader("v3-512").view()
        for (offset, count) in [(0, 12289), (12288, 1), (12289, 0), (UInt64.max, 1), (UInt64.max, 0)] {
            let error = #expect(throws: QCOW2Error.self) { try view.read(count, at: GuestOffset(offset)) }
            #expect(error?.code == .outsideDisk)
        }
        #expect(try view.read(0, at: GuestOffset(12288)).isEmpty)
    }

    @Test("A snapshot that isn't there is an error")
    func noSnapshot() throws {
        let reader = try reader("v3-512")
        for index in [-1, 1] {
            let error = #expect(throws: QCOW2Error.self) { try reader.view(ofSnapshotAt: index) }
            #expect(error?.code == .noSuchSnapshot)
        }
        let error = #expect(throws: QCOW2Error.self) { try reader.view(of: .snapshot(.name("nosuch"))) }
        #expect(error?.code == .noSuchSnapshot)
    }

    @Test("Many threads read two states at once through a cache of two slices", arguments: ["v3-512", "v3-4k-zstd"])
    func threads(_ name: String) throws {
        let reader = try reader(name, cacheByteCount: 0)
        let unit = reader.image.clusterSize
        let views = [try reader.view(), try reader.view(of: .snapshot(.name("first")))]
        let models = [model(name, unit, isActive: true), model(name, unit, isActive: false)]
        let wrong = Mutex(0)
        DispatchQueue.concurrentPerform(iterations: 8) { thread in
            for step in 0..<200 {
                let start = (thread * 7919 + step * 104_729) % (models[0].count - unit)
                let bytes = try? views[step % 2].read(unit, at: GuestOffset(UInt64(start)))
                if bytes != Array(models[step % 2][start..<(start + unit)]) { wrong.withLock { $0 += 1 } }
            }
        }
        #expect(wrong.withLock { $0 } == 0)
    }

    @Test("A fault in the tables is an error where it lies, and nowhere else")
    func fault() throws {
        var bytes = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        let l1Table = Int(bytes.number(at: 40))
        let l2Table = Int(bytes.number(at: l1Table) & 0x00FF_FFFF_FFFF_FE00)
        bytes.set(1 << 55, at: l2Table + 8 * 8)  // Guest cluster 8: far behind the end of the file.
        let view = try ImageReader(Image(storage: InMemoryStorage(bytes.bytes))).view()
        #expect(try view.read(8 * 512, at: GuestOffset(0)).count == 8 * 512)
        #expect(try view.read(512, at: GuestOffset(9 * 512)) == [UInt8](repeating: 9, count: 512))
        let error = #expect(throws: QCOW2Error.self) { try view.read(1, at: GuestOffset(8 * 512)) }
        #expect(error?.code == .corrupt && error?.offset == HostOffset(UInt64(l2Table + 64)))
        var cursor = view.extents()
        var end: UInt64 = 0
        let thrown = #expect(throws: QCOW2Error.self) {
            while let extent = try cursor.next() { end = extent.end.rawValue }
        }
        #expect(thrown?.code == .corrupt && end == 8 * 512)
        #expect(try cursor.next() == nil)
    }

    @Test("A disk size that no disk has is refused")
    func size() throws {
        var builder = ImageBuilder(size: 8192)
        builder.fill(1)
        let table = builder.take()
        builder.setSnapshots([
            RawSnapshot(l1TableOffset: table, l1EntryCount: 1, extra: RawSnapshot.extra(0, 1 << 63, .max))
        ])
        let reader = try ImageReader(Image(storage: InMemoryStorage(builder.finished().bytes)))
        let error = #expect(throws: QCOW2Error.self) { try reader.view(ofSnapshotAt: 0) }
        #expect(error?.code == .corrupt)
    }

    @Test("VM state that doesn't fit into its tables is refused, and what fits is read")
    func vmState() throws {
        for (size, isRefused) in [(UInt64(32768), false), (32769, true), (1 << 60, true), (.max, true)] {
            var builder = ImageBuilder(size: 8192)
            builder.fill(1)
            let (l1Table, l2Table, data) = (builder.take(), builder.take(), builder.take())
            builder.set(UInt64(l2Table), at: l1Table + 8)
            builder.set(UInt64(data), at: l2Table)
            builder.set(0x1234, at: data)
            builder.setSnapshots([
                RawSnapshot(l1TableOffset: l1Table, l1EntryCount: 2, extra: RawSnapshot.extra(size, 8192, .max))
            ])
            let view = try ImageReader(Image(storage: InMemoryStorage(builder.finished().bytes))).view(
                ofSnapshotAt: 0)
            #expect(view.vmStateSize == size)
            var bytes = [UInt8](repeating: 0xFF, count: 1024)
            var span = bytes.mutableSpan
            do throws(QCOW2Error) {
                try view.readVMState(into: &span, at: 0)
                #expect(!isRefused)
                #expect(bytes[6...7].elementsEqual([0x12, 0x34]) && bytes[512...].allSatisfy { $0 == 0 })
            } catch {
                #expect(isRefused && error.code == .corrupt)
            }
        }
    }
}
