// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import Synchronization
import TestTools
import Testing

/// States written to files of their own, without any other tool.
@Suite struct ExportTests {
    static let names = GoldenImageTests.names + ["demo"]

    private func views(_ name: String) throws -> [DiskView] {
        let image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2"), isWritable: false))
        let reader = try ImageReader(image)
        return try [reader.view()] + reader.image.snapshots.indices.map { try reader.view(ofSnapshotAt: $0) }
    }

    private func content(_ view: DiskView) throws -> [UInt8] {
        try view.read(Int(view.virtualSize), at: GuestOffset(0))
    }

    private func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    @Test("A raw export is the state, whatever the number of threads", arguments: names, [1, 2, 5])
    func raw(_ name: String, _ threadCount: Int) throws {
        let folder = try TemporaryFolder()
        for (index, view) in try views(name).enumerated() {
            var options = ExportOptions()
            options.threadCount = threadCount
            options.flushes = index == 0
            try view.export(to: folder.file("\(index).raw"), options: options)
            #expect(try bytes(folder.file("\(index).raw")) == content(view))
        }
    }

    @Test("An exported image is consistent, and reads as the state", arguments: names)
    func image(_ name: String) throws {
        let folder = try TemporaryFolder()
        for (index, view) in try views(name).enumerated() {
            for compression in [nil, CompressionType.deflate, .zstd] {
                let path = folder.file("\(index) \(compression.map { "\($0)" } ?? "plain")")
                var options = ExportOptions()
                options.format = .qcow2(compression: compression)
                try view.export(to: path, options: options)
                #expect(ConsistencyCount(try bytes(path)).findings.isEmpty)
                let copy = try ImageReader(Image.open(path, for: .reading)).view()
                #expect(copy.virtualSize == view.virtualSize)
                #expect(try content(copy) == content(view))
                var kinds: Set<Extent.Kind> = []
                try copy.forEachExtent { extent throws(QCOW2Error) in kinds.insert(extent.kind) }
                #expect(kinds == [compression == nil ? .data : .compressed, .unallocated] || kinds.count == 1)
            }
        }
    }

    @Test(
        "Data that doesn't become shorter stays as it is, and sizes may be odd", arguments: [1, 511, 65537, 1_500_000])
    func incompressible(_ byteCount: Int) throws {
        let folder = try TemporaryFolder()
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &random) }
        try folder.write(bytes, to: "base.raw")
        // An image of the same size that leaves everything to the raw file.
        let size = (byteCount + 511) / 512 * 512
        let path = try folder.write(
            BackedImage.bytes(named: "base.raw", format: "raw", dataClusterCount: 0, size: size), to: "disk.qcow2")
        let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
        for compression in [nil, CompressionType.deflate, .zstd] {
            var options = ExportOptions()
            options.format = .qcow2(compression: compression)
            options.replacesExisting = true
            try view.export(to: folder.file("copy"), options: options)
            #expect(ConsistencyCount(try self.bytes(folder.file("copy"))).findings.isEmpty)
            let copy = try ImageReader(Image.open(folder.file("copy"), for: .reading)).view()
            #expect(try content(copy) == bytes + [UInt8](repeating: 0, count: size - byteCount))
        }
    }

    @Test("Zeros are not written, though the image stores them")
    func sparse() throws {
        let folder = try TemporaryFolder()
        let megabyte = [UInt8](repeating: 0, count: 1 << 20)
        try folder.write(megabyte + [UInt8](repeating: 1, count: 4096) + megabyte, to: "base.raw")
        let path = try folder.write(
            BackedImage.bytes(named: "base.raw", format: "raw", dataClusterCount: 0, size: (2 << 20) + 4096),
            to: "disk.qcow2")
        let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
        try view.export(to: folder.file("copy.raw"))
        #expect(try bytes(folder.file("copy.raw")) == bytes(folder.file("base.raw")))
        var status = stat()
        #expect(stat(folder.file("copy.raw"), &status) == 0 && status.st_blocks * 512 <= 65536)
    }

    @Test("A name that is taken stays as it is, unless it may be replaced")
    func existing() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write([1, 2, 3], to: "there")
        let view = try views("demo")[0]
        let error = #expect(throws: QCOW2Error.self) { try view.export(to: path) }
        #expect(error?.code == .fileExists)
        #expect(try bytes(path) == [1, 2, 3])
        var options = ExportOptions()
        options.replacesExisting = true
        try view.export(to: path, options: options)
        #expect(try bytes(path) == content(view))
        let directory = #expect(throws: QCOW2Error.self) { try view.export(to: folder.path, options: options) }
        #expect(directory?.code == .inputOutput)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["there"])
    }

    @Test("The image and its backing files are never replaced by what is read from them")
    func sources() throws {
        let folder = try TemporaryFolder()
        let base = try folder.write([UInt8](repeating: 7, count: 4096), to: "base.raw")
        let path = try folder.write(BackedImage.bytes(named: "base.raw", format: "raw"), to: "disk.qcow2")
        try FileManager.default.linkItem(atPath: base, toPath: folder.file("other name"))
        let before = try bytes(path)
        let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
        var options = ExportOptions()
        options.replacesExisting = true
        for name in [path, base, folder.file("other name"), folder.file("./disk.qcow2")] {
            let error = #expect(throws: QCOW2Error.self) { try view.export(to: name, options: options) }
            #expect(error?.code == .fileExists)
        }
        #expect(try bytes(path) == before)
    }

    @Test("An export that fails or is cancelled leaves no file")
    func failure() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(BackedImage.bytes(named: "nosuch.raw", format: "raw"), to: "disk.qcow2")
        let view = try ImageReader(Image.open(path, for: .reading), backing: .anyFile).view()
        for format in [ExportOptions.Format.raw, .qcow2(), .qcow2(compression: .zstd)] {
            var options = ExportOptions()
            options.format = format
            let error = #expect(throws: QCOW2Error.self) { try view.export(to: folder.file("new"), options: options) }
            #expect(error?.code == .inputOutput && error?.message.contains("nosuch.raw") == true)
            options.progress = { _ in false }
            let cancelled = #expect(throws: QCOW2Error.self) {
                try views("demo")[0].export(to: folder.file("new"), options: options)
            }
            #expect(cancelled?.code == .cancelled)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["disk.qcow2"])
        let missing = #expect(throws: QCOW2Error.self) { try view.export(to: folder.file("nosuch/new")) }
        #expect(missing?.code == .inputOutput)
    }

    @Test("Reading all of a disk hands out each byte once, in order, and says how far it is", arguments: names)
    func readAll(_ name: String) throws {
        for view in try views(name) {
            let last = Mutex<QCOW2.Progress?>(nil)
            var read: [UInt8] = []
            try view.readAll(
                threadCount: 3,
                progress: { progress in
                    last.withLock { $0 = progress }
                    return true
                }
            ) { (range, bytes) throws(QCOW2Error) in
                #expect(range.lowerBound.rawValue == UInt64(read.count))
                if bytes.isEmpty {
                    read += [UInt8](repeating: 0, count: Int(range.upperBound.rawValue) - read.count)
                } else {
                    for index in bytes.indices { read.append(bytes[index]) }
                }
                #expect(range.upperBound.rawValue == UInt64(read.count))
            }
            #expect(try read == content(view))
            let progress = last.withLock { $0 }
            #expect(progress?.completed == view.virtualSize && progress?.total == view.virtualSize)
        }
    }

    @Test("A long range of zeros comes in parts, and reading can be stopped between them", arguments: [false, true])
    func longZeros(_ inStep: Bool) throws {
        var image = try Image.create(NewImage(virtualSize: 1 << 30), in: InMemoryStorage([]))
        try image.createSnapshot(named: "first")
        let reader = try ImageReader(image)
        let views = [try reader.view(), try reader.view(of: .snapshot(.name("first")))]
        func read(progress: @escaping @Sendable (QCOW2.Progress) -> Bool) throws -> [UInt64] {
            var ends: [UInt64] = []
            if inStep {
                try DiskView.readAll(views, progress: progress) { (range, indices, bytes) throws(QCOW2Error) in
                    let isEmpty = bytes.isEmpty
                    #expect(indices == [0, 1] && isEmpty)
                    ends.append(range.upperBound.rawValue)
                }
            } else {
                try views[1].readAll(progress: progress) { (range, bytes) throws(QCOW2Error) in
                    let isEmpty = bytes.isEmpty
                    #expect(isEmpty)
                    ends.append(range.upperBound.rawValue)
                }
            }
            return ends
        }
        #expect(try read { _ in true } == (1...4).map { $0 << 28 })
        let count = Mutex(0)
        let error = #expect(throws: QCOW2Error.self) {
            _ = try read { _ in
                count.withLock { count in
                    count += 1
                    return count < 2
                }
            }
        }
        #expect(error?.code == .cancelled && count.withLock { $0 } == 2)
    }

    @Test(
        "Several states read in step are each what they are alone, and what they share is read once", arguments: names)
    func shared(_ name: String) throws {
        let counting = CountedBytes(try Fixtures.bytes("\(name).qcow2"))
        let tally = counting.tally
        let reader = try ImageReader(Image(storage: counting))
        var views = [try reader.view()]
        for index in reader.image.snapshots.indices { views.append(try reader.view(ofSnapshotAt: index)) }
        views.append(views[0])
        var alone = 0
        var contents: [[UInt8]] = []
        for view in views {
            let before = tally.load(ordering: .relaxed)
            var bytes: [UInt8] = []
            try view.readAll { (range, part) throws(QCOW2Error) in
                for index in part.indices { bytes.append(part[index]) }
                bytes += [UInt8](repeating: 0, count: Int(range.upperBound.rawValue) - bytes.count)
            }
            contents.append(bytes)
            alone += tally.load(ordering: .relaxed) - before
        }
        let before = tally.load(ordering: .relaxed)
        var together = views.map { _ in [UInt8]() }
        try DiskView.readAll(views) { (range, indices, bytes) throws(QCOW2Error) in
            for view in indices {
                for index in bytes.indices { together[view].append(bytes[index]) }
                let missing = Int(range.upperBound.rawValue) - together[view].count
                together[view] += [UInt8](repeating: 0, count: missing)
            }
        }
        #expect(together == contents)
        #expect(tally.load(ordering: .relaxed) - before < alone)
    }
}

/// Bytes in memory that count how many of them are read.
struct CountedBytes: Storage, Sendable, ~Copyable {
    final class Tally: Sendable {
        private let count = Atomic(0)
        func add(_ byteCount: Int) { count.add(byteCount, ordering: .relaxed) }
        func load(ordering: AtomicLoadOrdering) -> Int { count.load(ordering: .relaxed) }
    }

    private let base: InMemoryStorage
    let tally = Tally()
    let name = "counted"
    let isWritable = false

    init(_ bytes: [UInt8]) { base = InMemoryStorage(bytes, isWritable: false) }

    func byteCount() throws(QCOW2Error) -> UInt64 { try base.byteCount() }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        tally.add(buffer.count)
        try base.read(into: &buffer, at: offset)
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {}
    mutating func flush() throws(QCOW2Error) {}
    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {}
    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {}
}
