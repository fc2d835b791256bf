// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Which files an image can make the library open, and what it reads as without them.
@Suite struct BackingChainTests {
    private static let unit = BackedImage.unit
    private static let raw = (0..<BackedImage.clusterCount * unit).map { UInt8(truncatingIfNeeded: 0x80 | $0 >> 9) }

    private func view(_ path: String, _ policy: BackingFilePolicy) throws -> DiskView {
        try ImageReader(Image.open(path, for: .reading), backing: policy).view()
    }

    /// Requires that the backing file's part can't be read, for a reason, while the image's own part can.
    private func expectClosed(
        _ path: String, _ policy: BackingFilePolicy, _ code: QCOW2Error.Code, _ words: String...,
        location: SourceLocation = #_sourceLocation
    ) throws {
        let view = try view(path, policy)
        let own = try view.read(2 * Self.unit, at: GuestOffset(0))
        #expect(own == Array(BackedImage.content(above: []).prefix(2 * Self.unit)), sourceLocation: location)
        let error = #expect(throws: QCOW2Error.self, sourceLocation: location) {
            try view.read(Self.unit, at: GuestOffset(UInt64(2 * Self.unit)))
        }
        #expect(error?.code == code, "\(String(describing: error))", sourceLocation: location)
        for word in words {
            #expect(error?.message.contains(word) == true, "\(String(describing: error))", sourceLocation: location)
        }
        var cursor = view.extents()
        var kinds: [Extent.Kind] = []
        while let extent = try cursor.next() { kinds.append(extent.kind) }
        #expect(kinds == [.data, .unopened], sourceLocation: location)
    }

    @Test("Without permission no file is opened, and its ranges are an error that names it")
    func none() throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.raw, to: "base.raw")
        let path = try folder.write(BackedImage.bytes(named: "base.raw", format: "raw"), to: "disk.qcow2")
        try expectClosed(path, .none, .backingFileNotAllowed, "'base.raw'", path, "0x400")
        let reader = try ImageReader(Image.open(path, for: .reading))
        #expect(throws: QCOW2Error.self) { try reader.view().read(512, at: GuestOffset(1024)) }
        #expect(try reader.image.backingFile()?.name == "base.raw")
        #expect(try reader.image.backingFile()?.format == "raw")
        // The way of reading without a reader agrees.
        let error = #expect(throws: QCOW2Error.self) { try reader.image.read(512, at: GuestOffset(1024)) }
        #expect(error?.code == .backingFileNotAllowed)
        let memory = try ImageReader(Image(storage: InMemoryStorage(BackedImage.bytes(named: "x", format: "raw"))))
        let inMemory = #expect(throws: QCOW2Error.self) { try memory.view().read(512, at: GuestOffset(1024)) }
        #expect(inMemory?.code == .backingFileNotAllowed)
    }

    @Test("With permission what the image doesn't hold is read from the backing file")
    func raw() throws {
        let folder = try TemporaryFolder()
        let base = try folder.write(Self.raw, to: "base.raw")
        let path = try folder.write(BackedImage.bytes(named: "base.raw", format: "raw"), to: "disk.qcow2")
        for policy in [.sameDirectory, .anyFile, .files([base]), BackingFilePolicy { $0.name == "base.raw" }] {
            let view = try view(path, policy)
            #expect(try view.read(Self.raw.count, at: GuestOffset(0)) == BackedImage.content(above: Self.raw))
            #expect(view.fileNames == [path, base])
        }
        try expectClosed(path, .files([path, folder.file("nosuch")]), .backingFileNotAllowed, "'base.raw'")
    }

    @Test("A raw file is never looked into: a guest could have written a header there")
    func probing() throws {
        let folder = try TemporaryFolder()
        let inner = BackedImage.bytes(named: "/etc/passwd", format: "raw")
        try folder.write(inner, to: "base.raw")
        let path = try folder.write(BackedImage.bytes(named: "base.raw", format: "raw"), to: "disk.qcow2")
        let bytes = try view(path, .anyFile).read(Self.raw.count, at: GuestOffset(0))
        #expect(bytes == BackedImage.content(above: inner))
    }

    @Test("A chain of images whose disks are shorter and longer reads as its files say", arguments: [3, 10, 24, 40])
    func lengths(_ middle: Int) throws {
        let folder = try TemporaryFolder()
        for rawCount in [0, 1, 5 * 512 + 100, Self.raw.count, 2 * Self.raw.count] {
            let raw = Array((Self.raw + Self.raw).prefix(rawCount))
            try folder.write(raw, to: "deep/base.raw")
            try folder.write(
                BackedImage.bytes(
                    named: "base.raw", format: "raw", dataClusterCount: 3, mark: 0x60, size: middle * Self.unit),
                to: "deep/middle.qcow2")
            let path = try folder.write(
                BackedImage.bytes(named: "deep/middle.qcow2", format: "qcow2"), to: "disk.qcow2")
            var below = (0..<3).flatMap { [UInt8](repeating: 0x61 + UInt8($0), count: Self.unit) } + raw.dropFirst(1536)
            below += [UInt8](repeating: 0, count: max(0, middle * Self.unit - below.count))
            let expected = BackedImage.content(above: Array(below.prefix(middle * Self.unit)))
            let view = try view(path, .anyFile)
            #expect(try view.read(expected.count, at: GuestOffset(0)) == expected)
            for start in stride(from: 0, to: expected.count - 700, by: 333) {
                #expect(try view.read(700, at: GuestOffset(UInt64(start))) == Array(expected[start..<(start + 700)]))
            }
            // The middle image is in another directory, and base.raw in the middle image's.
            try expectClosed(path, .sameDirectory, .backingFileNotAllowed, "'deep/middle.qcow2'")
        }
    }

    @Test("The same directory means the file itself, whatever its name or a link says")
    func sameDirectory() throws {
        let folder = try TemporaryFolder()
        let outside = try folder.write(Self.raw, to: "outside.raw")
        try folder.write(Self.raw, to: "images/inside.raw")
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("images/link.raw"), withDestinationPath: outside)
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("images/good.raw"), withDestinationPath: "inside.raw")
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("other"), withDestinationPath: folder.file("images"))
        func path(_ name: String) throws -> String {
            try folder.write(BackedImage.bytes(named: name, format: "raw"), to: "images/disk.qcow2")
        }
        for name in ["../outside.raw", "link.raw", outside, "nosuch/../../outside.raw", "/etc/passwd"] {
            try expectClosed(path(name), .sameDirectory, .backingFileNotAllowed, "'\(name)'")
        }
        let names = [
            "inside.raw", "good.raw", "./inside.raw", "../images/inside.raw", folder.file("images/inside.raw"),
            folder.file("other/inside.raw"),
        ]
        for name in names {
            let path = try path(name)
            for spelling in [path, folder.file("other/disk.qcow2")] {
                let bytes = try view(spelling, .sameDirectory).read(Self.raw.count, at: GuestOffset(0))
                #expect(bytes == BackedImage.content(above: Self.raw), "\(name)")
            }
        }
    }

    @Test("What is opened is what was allowed, whatever the name leads to a moment later", arguments: [true, false])
    func changedLink(_ isLink: Bool) throws {
        let folder = try TemporaryFolder()
        let secret = try folder.write([UInt8](repeating: 0x5E, count: Self.raw.count), to: "secret.raw")
        try folder.write(Self.raw, to: "images/inside.raw")
        let name = folder.file("images/\(isLink ? "link" : "inside").raw")
        if isLink {
            try FileManager.default.createSymbolicLink(atPath: name, withDestinationPath: "inside.raw")
        }
        let bytes = BackedImage.bytes(named: isLink ? "link.raw" : "inside.raw", format: "raw")
        let path = try folder.write(bytes, to: "images/disk.qcow2")
        let policy = BackingFilePolicy { request in
            let isAllowed = request.isInDirectoryOfImage
            try? FileManager.default.removeItem(atPath: name)
            try? FileManager.default.createSymbolicLink(atPath: name, withDestinationPath: secret)
            return isAllowed
        }
        guard isLink else { return try expectClosed(path, policy, .backingFileNotAllowed, "'inside.raw'") }
        let disk = try view(path, policy).read(Self.raw.count, at: GuestOffset(0))
        #expect(disk == BackedImage.content(above: Self.raw))
    }

    @Test(
        "A folder that becomes a link after the file in it was allowed leads nowhere",
        arguments: ["images", "images/deep"], ["raw", "qcow2"])
    func changedFolder(_ swapped: String, _ format: String) throws {
        let folder = try TemporaryFolder()
        for place in ["images/deep", "secret/deep", "secret"] {
            let mark: UInt8 = place.hasPrefix("secret") ? 0x5E : 0x11
            let bytes =
                format == "raw"
                ? [UInt8](repeating: mark, count: Self.raw.count)
                : BackedImage.bytes(named: nil, format: nil, dataClusterCount: 20, mark: mark)
            try folder.write(bytes, to: "\(place)/inside")
        }
        let bytes = BackedImage.bytes(named: "inside", format: format)
        let path = try folder.write(bytes, to: "images/deep/disk.qcow2")
        for makeAllowed in [{ $0.isInDirectoryOfImage }, { _ in true }] as [@Sendable (BackingFileRequest) -> Bool] {
            let policy = BackingFilePolicy { request in
                let isAllowed = makeAllowed(request)
                try? FileManager.default.moveItem(atPath: folder.file(swapped), toPath: folder.file("away"))
                try? FileManager.default.createSymbolicLink(
                    atPath: folder.file(swapped), withDestinationPath: folder.file("secret"))
                return isAllowed
            }
            try expectClosed(path, policy, .backingFileNotAllowed, "'inside'", "symbolic link")
            try FileManager.default.removeItem(atPath: folder.file(swapped))
            try FileManager.default.moveItem(atPath: folder.file("away"), toPath: folder.file(swapped))
        }
    }

    @Test("What is beside an image is what is where the open one lies", arguments: [true, false])
    func movedImage(_ hasTwin: Bool) throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0x5E, count: Self.raw.count), to: "secret/inside.raw")
        let outside = try folder.write(Self.raw, to: "outside.raw")
        try folder.write(Self.raw, to: "images/inside.raw")
        for name in ["inside.raw", outside] {
            let bytes = BackedImage.bytes(named: name, format: "raw")
            let path = try folder.write(bytes, to: "images/disk.qcow2")
            if hasTwin { try folder.write(bytes, to: "secret/disk.qcow2") }
            let image = try Image.open(path, for: .reading)
            try FileManager.default.moveItem(atPath: folder.file("images"), toPath: folder.file("away"))
            try FileManager.default.createSymbolicLink(
                atPath: folder.file("images"), withDestinationPath: folder.file("secret"))
            let reader = try ImageReader(image, backing: name == outside ? .anyFile : .sameDirectory)
            if name == outside {
                let disk = try reader.view().read(Self.raw.count, at: GuestOffset(0))
                #expect(disk == BackedImage.content(above: Self.raw))
            } else {
                let error = #expect(throws: QCOW2Error.self) {
                    try reader.view().read(Self.unit, at: GuestOffset(UInt64(2 * Self.unit)))
                }
                #expect(error?.code == .backingFileNotAllowed && error?.message.contains("another file by now") == true)
            }
            try FileManager.default.removeItem(atPath: folder.file("images"))
            try FileManager.default.moveItem(atPath: folder.file("away"), toPath: folder.file("images"))
        }
    }

    @Test(
        "What isn't a plain path to a raw or qcow2 file is refused by name, even if all files are allowed",
        arguments: [
            ("json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "raw", "'json:'"),
            ("nbd://host/export", "raw", "'nbd:'"), ("nbd:unix:/socket", "raw", "'nbd:'"),
            ("file:base.raw", "raw", "'file:'"), ("base.raw", nil, "format"), ("base.raw", "vmdk", "'vmdk'"),
            ("base.raw", "luks", "'luks'"), ("base.raw\0/etc/passwd", "raw", "name"),
        ])
    func kinds(_ name: String, _ format: String?, _ word: String) throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.raw, to: "base.raw")
        let path = try folder.write(BackedImage.bytes(named: name, format: format), to: "disk.qcow2")
        try expectClosed(path, .anyFile, .unsupported, word)
    }

    @Test("A backing file that can't be opened is an error only where its data is needed")
    func missing() throws {
        let folder = try TemporaryFolder()
        let path = try folder.write(BackedImage.bytes(named: "nosuch.raw", format: "raw"), to: "disk.qcow2")
        try expectClosed(path, .anyFile, .inputOutput, "'nosuch.raw'", "No such file")
        try folder.write([1, 2, 3], to: "nosuch.raw")
        let damaged = try folder.write(BackedImage.bytes(named: "nosuch.raw", format: "qcow2"), to: "disk2.qcow2")
        try expectClosed(damaged, .anyFile, .notQCOW2, "'nosuch.raw'")
    }

    @Test("A chain that leads back to one of its files, under whatever name, ends there")
    func loops() throws {
        let folder = try TemporaryFolder()
        let own = try folder.write(BackedImage.bytes(named: "disk.qcow2", format: "qcow2"), to: "disk.qcow2")
        try expectClosed(own, .anyFile, .corrupt, "already part of the chain")
        try folder.write(BackedImage.bytes(named: "link.qcow2", format: "qcow2", dataClusterCount: 1), to: "b.qcow2")
        try FileManager.default.linkItem(atPath: own, toPath: folder.file("link.qcow2"))
        let first = try folder.write(BackedImage.bytes(named: "b.qcow2", format: "qcow2"), to: "a.qcow2")
        // a, b, link (which names itself, as disk.qcow2).
        try expectClosed(first, .anyFile, .corrupt, "already part of the chain")
    }

    @Test("A long chain is read to its bottom, up to the limit")
    func depth() throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.raw, to: "0")
        for number in 1...202 {
            let format = number == 1 ? "raw" : "qcow2"
            try folder.write(
                BackedImage.bytes(named: "\(number - 1)", format: format, dataClusterCount: 2), to: "\(number)")
        }
        let bytes = try view(folder.file("200"), .anyFile).read(Self.raw.count, at: GuestOffset(0))
        #expect(bytes == BackedImage.content(above: Self.raw))
        try expectClosed(folder.file("202"), .anyFile, .limitExceeded, "200 files")
    }
}
