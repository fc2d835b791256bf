// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2Testing
import Synchronization
import TestTools
import Testing

@testable import QCOW2

/// New files: when they appear, and what they never replace.
@Suite struct NewFileTests {
    private static let raw = [UInt8](repeating: 0x33, count: BackedImage.clusterCount * BackedImage.unit)

    private func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    private func status(_ path: String) throws -> stat {
        var status = stat()
        try #require(lstat(path, &status) == 0)
        return status
    }

    private func options(replacing: Bool = true, flushes: Bool = true) -> ExportOptions {
        var options = ExportOptions()
        options.replacesExisting = replacing
        options.flushes = flushes
        return options
    }

    /// A disk in a file of its own, without a backing file.
    private func view(in folder: TemporaryFolder) throws -> DiskView {
        let path = try folder.write(BackedImage.bytes(named: nil, format: nil), to: "source/disk.qcow2")
        return try ImageReader(Image.open(path, for: .reading)).view()
    }

    /// Writes a file through calls that are recorded, and returns them from the last write on.
    @discardableResult
    private func write(_ path: String, _ options: ExportOptions, _ calls: FaultyCalls) throws -> [FaultyCalls.Kind] {
        let file = try NewFile(path: path, options, sources: [], calls: calls)
        try file.write([1, 2, 3].span, at: 0)
        try file.commit(byteCount: 3, flushes: options.flushes)
        let kinds = calls.script.calls.map(\.kind)
        let last = try #require(kinds.lastIndex(of: .write))
        return kinds[last...].filter { $0 != .status }
    }

    @Test(
        "The bytes are flushed before there is a name, and the name before there is success", arguments: [true, false])
    func order(_ replaces: Bool) throws {
        let folder = try TemporaryFolder()
        let path = replaces ? try folder.write([9], to: "there") : folder.file("new")
        let naming = replaces ? FaultyCalls.Kind.rename : .link
        #expect(
            try write(path, options(replacing: replaces), FaultyCalls()) == [.write, .flush, naming, .flushFolder])
        #expect(try bytes(path) == [1, 2, 3])
        if !replaces { try FileManager.default.removeItem(atPath: path) }
        #expect(try write(path, options(replacing: replaces, flushes: false), FaultyCalls()) == [.write, naming])
        #expect(ExportOptions().flushes)
    }

    @Test(
        "A call that fails is an error, and the name is as it was unless it says so", arguments: [true, false],
        [EIO, ENOSPC])
    func failure(_ replaces: Bool, _ number: Int32) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("file")
        func prepare() throws { if replaces { try folder.write([9], to: "file") } }
        try prepare()
        let dry = FaultyCalls()
        try write(path, options(replacing: replaces), dry)
        for (index, call) in dry.script.calls.enumerated() {
            try? FileManager.default.removeItem(atPath: path)
            try prepare()
            let calls = FaultyCalls()
            calls.script.plan(.error(number), at: index)
            // A file system that has no other names for files is no failure.
            guard call.kind != .link else {
                try write(path, options(replacing: replaces), calls)
                continue
            }
            let error = #expect(throws: QCOW2Error.self) { try write(path, options(replacing: replaces), calls) }
            #expect(error?.code == .inputOutput && (error?.cause as? SystemError)?.number == number)
            #expect(error?.message.contains(call.kind.words) == true, "\(String(describing: error))")
            let isThere = call.kind == .flushFolder
            let expected: [UInt8]? = isThere ? [1, 2, 3] : replaces ? [9] : nil
            #expect((try? bytes(path)) == expected, "\(call)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).count == (expected == nil ? 0 : 1))
            if isThere { #expect(error?.message.contains("is complete") == true) }
        }
    }

    @Test("Where folders can't be flushed at all, that is no failure", arguments: [EINVAL, ENOTSUP])
    func noFolderFlush(_ number: Int32) throws {
        let folder = try TemporaryFolder()
        let dry = FaultyCalls()
        try write(folder.file("a"), options(), dry)
        let calls = FaultyCalls()
        calls.script.plan(.error(number), at: try #require(dry.script.calls.firstIndex { $0.kind == .flushFolder }))
        try write(folder.file("b"), options(), calls)
        // Creating an image says so, too.
        let created = FaultyCalls()
        var file = try SystemFile(path: folder.file("c"), for: .writing, isNew: true, calls: created)
        try file.flush()
        try file.flush()
        #expect(created.script.calls.map(\.kind).filter { $0 != .status } == [.flush, .flushFolder, .flush])
    }

    @Test("A file that somebody uses is not replaced", arguments: [FileStorage.Access.reading, .writing])
    func inUse(_ access: FileStorage.Access) throws {
        let folder = try TemporaryFolder()
        let view = try view(in: folder)
        let path = try folder.write([9], to: "there")
        let holder = try FileStorage(path: path, for: access)
        let error = #expect(throws: QCOW2Error.self) { try view.export(to: path, options: options()) }
        #expect(error?.code == .inUse && error?.message.contains("'\(path)'") == true)
        #expect(try bytes(path) == [9])
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() == ["source", "there"])
        _ = consume holder
        try view.export(to: path, options: options())
        #expect(try bytes(path).count == Self.raw.count)
    }

    @Test("Until it is replaced nobody can begin to use it, and nobody can read what will be secret")
    func locked() throws {
        let folder = try TemporaryFolder()
        let view = try view(in: folder)
        let path = try folder.write([9], to: "there")
        try #require(chmod(path, 0o600) == 0)
        var options = options()
        let asked = Mutex(0)
        options.progress = { _ in
            asked.withLock { $0 += 1 }
            for access in [FileStorage.Access.reading, .writing] {
                let error = #expect(throws: QCOW2Error.self) { _ = try FileStorage(path: path, for: access) }
                #expect(error?.code == .inUse)
            }
            let names = try? FileManager.default.contentsOfDirectory(atPath: folder.path)
            for name in names ?? [] where name.hasPrefix(".there.qsnap-") {
                #expect((try? status(folder.file(name)).st_mode).map { $0 & 0o777 } == 0o600)
            }
            return true
        }
        try view.export(to: path, options: options)
        #expect(asked.withLock { $0 } > 0)
        _ = try FileStorage(path: path, for: .writing)
    }

    @Test("Without locks nothing is replaced, unless the caller says so")
    func noLocks() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write([9], to: "there")
        let calls = FaultyCalls()
        calls.script.state.withLock { $0.locks = ENOLCK }
        var options = options()
        #if os(Linux)
            let error = #expect(throws: QCOW2Error.self) { try write(path, options, calls) }
            #expect(error?.code == .locksUnavailable)
            #expect(try bytes(path) == [9])
        #endif
        options.locks = .ifAvailable
        try write(path, options, calls)
        #expect(try bytes(path) == [1, 2, 3])
    }

    @Test("Owner and permissions stay", arguments: [0o600, 0o640, 0o444, 0o777] as [mode_t])
    func ownership(_ mode: mode_t) throws {
        let folder = try TemporaryFolder()
        let view = try view(in: folder)
        let path = try folder.write([9], to: "there")
        try #require(chmod(path, mode) == 0)
        if geteuid() == 0 { try #require(chown(path, 1234, 4321) == 0) }
        let before = try status(path)
        for format in [ExportOptions.Format.raw, .qcow2()] {
            var options = options()
            options.format = format
            try view.export(to: path, options: options)
            let after = try status(path)
            #expect(after.st_mode == before.st_mode && after.st_uid == before.st_uid && after.st_gid == before.st_gid)
        }
        try view.export(to: folder.file("new"))
        let mask = umask(0)
        umask(mask)
        #expect(try status(folder.file("new")).st_mode & 0o777 == 0o666 & ~mask)
    }

    @Test("A link to a file stays, and the file that it leads to is replaced")
    func link() throws {
        let folder = try TemporaryFolder()
        let view = try view(in: folder)
        let path = try folder.write([9], to: "elsewhere/there")
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("link"), withDestinationPath: "elsewhere/there")
        try view.export(to: folder.file("link"), options: options())
        #expect(try status(folder.file("link")).st_mode & S_IFMT == S_IFLNK)
        #expect(try bytes(path).count == Self.raw.count)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.file("elsewhere")) == ["there"])
        try FileManager.default.removeItem(atPath: path)
        for replaces in [true, false] {
            let error = #expect(throws: QCOW2Error.self) {
                try view.export(to: folder.file("link"), options: options(replacing: replaces))
            }
            #expect(error?.code == .fileExists && error?.message.contains("leads nowhere") == true)
        }
        #expect(try status(folder.file("link")).st_mode & S_IFMT == S_IFLNK)
    }

    @Test("A file that takes the name meanwhile stays", arguments: [true, false])
    func meanwhile(_ wasThere: Bool) throws {
        let folder = try TemporaryFolder()
        let view = try view(in: folder)
        let path = folder.file("there")
        if wasThere { try folder.write([9], to: "there") }
        var options = options()
        options.progress = { _ in
            _ = try? folder.write([7], to: "other")
            return rename(folder.file("other"), path) == 0
        }
        let error = #expect(throws: QCOW2Error.self) { try view.export(to: path, options: options) }
        #expect(error?.code == .fileExists && error?.message.contains("meanwhile") == true)
        #expect(try bytes(path) == [7])
    }

    @Test(
        "What the image names is never replaced, though it wasn't opened",
        arguments: [
            "base.raw", "./base.raw", "/base.raw", "file:base.raw", "link.raw",
            #"json:{"driver":"raw","file":{"driver":"file","filename":"/base.raw"}}"#,
        ])
    func named(_ name: String) throws {
        let folder = try TemporaryFolder()
        let base = try folder.write(Self.raw, to: "base.raw")
        try FileManager.default.createSymbolicLink(atPath: folder.file("link.raw"), withDestinationPath: "base.raw")
        try FileManager.default.linkItem(atPath: base, toPath: folder.file("hard.raw"))
        let isAbsolute = name.contains("/base.raw") && name != "./base.raw"
        let spelled = isAbsolute ? name.replacing("/base.raw", with: base) : name
        let path = try folder.write(
            BackedImage.bytes(named: spelled, format: "raw", dataClusterCount: BackedImage.clusterCount),
            to: "disk.qcow2")
        let views = [
            try ImageReader(Image.open(path, for: .reading)).view(),
            try ImageReader(Image.open(path, for: .reading), backing: .none).view(),
            try ImageReader(Image.open(path, for: .reading), backing: .anyFile).view(),
        ]
        for view in views {
            for target in [base, folder.file("link.raw"), folder.file("hard.raw"), path] {
                for replaces in [true, false] {
                    let error = #expect(throws: QCOW2Error.self) {
                        try view.export(to: target, options: options(replacing: replaces))
                    }
                    #expect(error?.code == .fileExists && error?.message.contains("being read") == true)
                }
                #expect(view.file(at: target) != nil)
            }
            try view.export(to: folder.file("new.raw"), options: options())
            #expect(view.file(at: folder.file("new.raw")) == nil)
        }
        #expect(try bytes(base) == Self.raw)
        var kept = options()
        kept.keptFiles = [folder.file("new.raw")]
        let error = #expect(throws: QCOW2Error.self) {
            try views[0].export(to: folder.file("./new.raw"), options: kept)
        }
        #expect(error?.code == .fileExists)
    }

    @Test("Neither is the external data file of a backing file")
    func dataFile() throws {
        let folder = try TemporaryFolder()
        let data = try folder.write(Self.raw, to: "data.raw")
        var builder = ImageBuilder(size: UInt64(Self.raw.count))
        builder.fill(2)
        var image = builder.finished()
        image.setExtensions([(0x4441_5441, Array("data.raw".utf8))], at: 112)
        image.set(4, at: 72)
        try folder.write(image.bytes, to: "base.qcow2")
        let path = try folder.write(
            BackedImage.bytes(named: "base.qcow2", format: "qcow2", dataClusterCount: BackedImage.clusterCount),
            to: "disk.qcow2")
        let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
        let error = #expect(throws: QCOW2Error.self) { try view.export(to: data, options: options()) }
        #expect(error?.code == .fileExists)
        #expect(try bytes(data) == Self.raw)
    }
}
