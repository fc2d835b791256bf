// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Real file systems in snapshots: exported, checked by their own tools, and their files compared.
@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-utils"))
struct FileSystemTests {
    /// A tool of a file system, which may not be on an ordinary user's path.
    static func tool(_ name: String) -> String {
        ["/usr/sbin/\(name)", "/sbin/\(name)"].first { Tool.isInstalled($0) } ?? name
    }

    /// Makes an image with the first disk as a snapshot and the second as the active state, and exports both.
    private func export(_ first: String, _ second: String, in folder: TemporaryFolder) throws -> (String, String) {
        let image = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", first, image])
        do {
            var opened = try Image.open(image, for: .writing)
            try opened.createSnapshot(named: "first")
        }
        try Tool.check("qemu-img", ["convert", "-n", "-f", "raw", "-O", "qcow2", second, image])
        let outputs = (folder.file("first.out"), folder.file("second.out"))
        for (words, output) in [([image, "first"], outputs.0), ([image], outputs.1)] {
            try Tool.check(Tool.qsnap, ["export"] + words + [output])
        }
        for (raw, output) in [(first, outputs.0), (second, outputs.1)] {
            let (left, right) = (
                try Data(contentsOf: URL(fileURLWithPath: raw)), try Data(contentsOf: URL(fileURLWithPath: output))
            )
            #expect(isSame(left, right))
        }
        return outputs
    }

    private func makeFiles(_ folder: TemporaryFolder, _ mark: String) throws -> URL {
        let files = URL(fileURLWithPath: folder.file("files"))
        try FileManager.default.createDirectory(at: files, withIntermediateDirectories: true)
        for number in 0..<20 {
            let text = String(repeating: "\(mark) \(number)\n", count: 1 << number % 12)
            try Data(text.utf8).write(to: files.appendingPathComponent("file\(number)"))
        }
        return files
    }

    @Test(
        "ext4: both states are clean, and hold their files",
        .enabled(
            if: Tool.isInstalled(FileSystemTests.tool("mkfs.ext4"))
                && Tool.isInstalled(FileSystemTests.tool("debugfs")), "needs e2fsprogs"))
    func ext4() throws {
        let folder = try TemporaryFolder()
        let (first, second) = (folder.file("first.raw"), folder.file("second.raw"))
        let files = try makeFiles(folder, "old")
        try Tool.check(Self.tool("mkfs.ext4"), ["-q", "-d", files.path, first, "32M"])
        try FileManager.default.copyItem(atPath: first, toPath: second)
        try Data("new".utf8).write(to: files.appendingPathComponent("new"))
        try Tool.check(Self.tool("debugfs"), ["-w", "-R", "write \(files.path)/new new", second])
        try Tool.check(Self.tool("debugfs"), ["-w", "-R", "rm file3", second])
        let (old, new) = try export(first, second, in: folder)
        for (disk, names, missing) in [(old, ["file3", "file11"], "new"), (new, ["new", "file11"], "file3")] {
            let check = try Tool.run(Self.tool("e2fsck"), ["-f", "-n", disk])
            #expect(check.status == 0, "\(check.output)\(check.errors)")
            for name in names {
                let copy = folder.file("copy")
                try Tool.check(Self.tool("debugfs"), ["-R", "dump \(name) \(copy)", disk])
                let expected = try Data(contentsOf: files.appendingPathComponent(name))
                #expect(try Data(contentsOf: URL(fileURLWithPath: copy)) == expected)
            }
            #expect(!(try Tool.check(Self.tool("debugfs"), ["-R", "ls -p", disk])).contains("/\(missing)/"))
        }
    }

    @Test(
        "FAT: both states are clean, and hold their files",
        .enabled(
            if: Tool.isInstalled(FileSystemTests.tool("mkfs.vfat")) && Tool.isInstalled("mcopy"),
            "needs dosfstools and mtools"))
    func fat() throws {
        let folder = try TemporaryFolder()
        let (first, second) = (folder.file("first.raw"), folder.file("second.raw"))
        let files = try makeFiles(folder, "old")
        try Tool.check("truncate", ["-s", "16M", first])
        try Tool.check(Self.tool("mkfs.vfat"), [first])
        try Tool.check("mcopy", ["-i", first] + (0..<20).map { "\(files.path)/file\($0)" } + ["::"])
        try FileManager.default.copyItem(atPath: first, toPath: second)
        try Data("new".utf8).write(to: files.appendingPathComponent("new"))
        try Tool.check("mcopy", ["-i", second, "\(files.path)/new", "::"])
        try Tool.check("mdel", ["-i", second, "::file3"])
        let (old, new) = try export(first, second, in: folder)
        for (disk, names, missing) in [(old, ["file3", "file11"], "new"), (new, ["new", "file11"], "file3")] {
            let check = try Tool.run(Self.tool("fsck.vfat"), ["-n", disk])
            #expect(check.status == 0, "\(check.output)\(check.errors)")
            for name in names {
                let text = try Tool.check("mtype", ["-i", disk, "::\(name)"])
                #expect(
                    text == String(decoding: try Data(contentsOf: files.appendingPathComponent(name)), as: UTF8.self))
            }
            #expect(try Tool.run("mtype", ["-i", disk, "::\(missing)"]).status != 0)
        }
    }

    @Test(
        "XFS: both states are clean, and hold their files",
        .enabled(
            if: Tool.isInstalled(FileSystemTests.tool("mkfs.xfs"))
                && Tool.isInstalled(FileSystemTests.tool("xfs_repair")), "needs xfsprogs"))
    func xfs() throws {
        let folder = try TemporaryFolder()
        // xfsprogs fills a new file system from a list, and changes none; so the second state is made anew.
        var disks: [String] = []
        for (name, mark) in [("first.raw", "old"), ("second.raw", "new")] {
            let files = try makeFiles(folder, mark)
            let lines = (0..<20).map { "file\($0) ---644 0 0 \(files.path)/file\($0)" }
            let list = (["/boot", "0 0", "d--755 0 0"] + lines + ["$", ""]).joined(separator: "\n")
            try Data(list.utf8).write(to: URL(fileURLWithPath: folder.file("list")))
            try Tool.check("truncate", ["-s", "320M", folder.file(name)])
            try Tool.check(Self.tool("mkfs.xfs"), ["-q", "-f", "-p", folder.file("list"), folder.file(name)])
            disks.append(folder.file(name))
        }
        let (old, new) = try export(disks[0], disks[1], in: folder)
        for (disk, mark) in [(old, "old"), (new, "new")] {
            let check = try Tool.run(Self.tool("xfs_repair"), ["-n", "-f", disk])
            #expect(check.status == 0, "\(check.output)\(check.errors)")
            // Small enough to be read whole: each file's last line is in there.
            let bytes = try Data(contentsOf: URL(fileURLWithPath: disk))
            for number in 0..<20 { #expect(bytes.range(of: Data("\(mark) \(number)\n".utf8)) != nil) }
        }
    }
}
