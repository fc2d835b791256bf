// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import TestTools
import Testing

/// A way of every command that only reads, on an image with the snapshot `first`: a new command gets a line here.
let readingCommands = [
    ["list"], ["list", "--json"], ["list", "-U"], ["list", "--verbose"], ["delete", "first", "--dry-run"],
    ["delete", "--all", "-n", "--json"], ["check"], ["check", "--json"], ["check", "--deep"], ["check", "-U"],
    ["inspect"], ["inspect", "--dump"], ["inspect", "--json"], ["inspect", "-U"],
    ["export", "-"], ["export", "first", "-"], ["map"], ["map", "first", "--json"], ["hash"], ["hash", "--all"],
    ["hash", "--manifest", "-U"], ["usage"], ["usage", "--deleting", "first"], ["usage", "--json"],
    ["diff", "first"], ["diff", "--full", "--json"], ["diff", "first", "--exact"],
]

/// Reading changes neither a byte nor a date, and needs no permission to write.
@Suite struct ReadingTests {
    static let images = [
        "v2-512", "v3-512", "v3-4k-zstd", "v3-16k-extended", "v3-512-bitmaps", "v3-512-refcount64", "v3-512-backing",
    ]

    /// What can be known of a file without what reading itself may change, its date of access.
    private struct Trace: Hashable {
        let bytes: Data
        let numbers: [Int]

        init(_ path: String) throws {
            bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            var status = stat()
            guard stat(path, &status) == 0 else { throw Tool.Failed(description: "stat failed") }
            #if canImport(Darwin)
                let dates = [status.st_mtimespec, status.st_ctimespec]
            #else
                let dates = [status.st_mtim, status.st_ctim]
            #endif
            numbers =
                [
                    Int(status.st_size), Int(status.st_blocks), Int(status.st_mode), Int(status.st_ino),
                    Int(status.st_uid), Int(status.st_nlink),
                ] + dates.flatMap { [Int($0.tv_sec), Int($0.tv_nsec)] }
        }
    }

    @Test("Not a byte, a date or a mode changes", arguments: images, readingCommands)
    func untouched(_ name: String, _ words: [String]) throws {
        // Marks that a writer would clear: an unknown autoclear bit, and the dirty bit.
        for mark in [nil, 95, 79] where mark == nil || !name.hasPrefix("v2") {
            let image = try TestImage(name) { if let mark { $0[mark] |= mark == 79 ? 1 : 0x40 } }
            if name.hasSuffix("backing") {
                try Data(repeating: 0x77, count: 12288)
                    .write(to: URL(fileURLWithPath: image.folder.file("backing.raw")))
            }
            let names = try Set(FileManager.default.contentsOfDirectory(atPath: image.folder.path))
            let before = try Trace(image.path)
            let result = try image.run(words)
            // A checker has something to say about a dirty image.
            #expect([0, 2].contains(result.status), "\(result.errors)")
            // What deleting frees can't be told of a dirty image.
            #expect(!result.output.isEmpty || mark == 79 && words.contains("--deleting"), "\(result.errors)")
            #expect(try Trace(image.path) == before)
            // Nothing is left beside it, either.
            #expect(try Set(FileManager.default.contentsOfDirectory(atPath: image.folder.path)) == names)
            TestTally.add(1, to: words.joined(separator: " "), of: "readings that left no trace")
        }
    }

    @Test(
        "The file is opened for reading only", .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"),
        arguments: readingCommands)
    func opened(_ words: [String]) throws {
        let image = try TestImage()
        let log = image.folder.file("log")
        let result = try image.run(words, via: #"exec strace -f -o '\#(log)' -e trace=file,desc "$@""#)
        #expect(result.status == 0)
        let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
        let opens = lines.filter { $0.contains("open") && $0.contains(image.path) }
        #expect(!opens.isEmpty)
        for line in opens { #expect(line.contains("O_RDONLY") && line.contains("O_CLOEXEC"), "\(line)") }
        for call in ["pwrite64(", "ftruncate(", "fallocate(", "fdatasync(", "utimensat(", "O_RDWR", "O_CREAT"] {
            #expect(!lines.contains { $0.contains(call) }, "\(call)")
        }
    }

    @Test(
        "A user without permission to write the file or its folder can read",
        .enabled(if: Unprivileged.isPossible, "needs a user other than root, or setpriv and a readable build"),
        arguments: readingCommands)
    func unprivileged(_ words: [String]) throws {
        let image = try TestImage()
        try #require(chmod(image.path, 0o444) == 0 && chmod(image.folder.path, 0o555) == 0)
        defer { _ = chmod(image.folder.path, 0o755) }
        let before = try Trace(image.path)
        let result = try image.run(words, via: Unprivileged.script)
        #expect(result.status == 0 && !result.output.isEmpty, "\(result.errors)")
        #expect(try Trace(image.path) == before)
    }

    @Test(
        "An image on a file system that is mounted for reading only can be read, and is refused to who writes",
        .enabled(if: Mount.isPossible, "needs the right to mount in a namespace of one's own"))
    func readOnlyMount() throws {
        let image = try TestImage()
        let script = Mount.script(
            "mount --bind '\(image.folder.path)' '\(image.folder.path)' && "
                + "mount -o remount,ro,bind '\(image.folder.path)'")
        for words in readingCommands {
            let result = try Mount.run(script, [words[0], image.path] + words.dropFirst())
            #expect(result.status == 0 && !result.output.isEmpty, "\(result.errors)")
        }
        for words in writingVerbs {
            let result = try Mount.run(script, [words[0], image.path] + words.dropFirst())
            expectOneSentence(
                result, status: 1, naming: image.path, ["Read-only file system", "check the permissions"])
        }
    }

    @Test(
        "On a file system without holes every verb works",
        .enabled(if: Mount.isPossible, "needs the right to mount in a namespace of one's own"),
        arguments: writingVerbs)
    func noHoles(_ words: [String]) throws {
        let folder = try TemporaryFolder()
        let original = Fixtures.path("v3-4k.qcow2")
        // The file system that is nothing but memory punches no holes.
        let script = Mount.script(
            "mount -t ramfs ramfs '\(folder.path)' && cd '\(folder.path)' && cp '\(original)' disk.qcow2 && "
                + "! fallocate -p -o 0 -l 4096 disk.qcow2 2>/dev/null")
        let result = try Mount.run(script, [words[0], "disk.qcow2"] + words.dropFirst())
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    }
}

/// Mounts in a namespace of the test's own.
enum Mount {
    static let isPossible: Bool = {
        guard Tool.isInstalled("unshare"), Tool.isInstalled("bash"), let folder = try? TemporaryFolder() else {
            return false
        }
        let result = try? Tool.run("unshare", ["-rm", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder.path])
        return result?.status == 0
    }()

    /// Runs the command in a namespace of its own, by a script.
    static func run(_ script: String, _ arguments: [String]) throws -> Tool.Result {
        try Tool.run("unshare", ["-rm", "bash", "-c", script, "bash", Tool.qsnap] + arguments)
    }

    /// A script that runs the command after some preparation, which ends it with status 99 when it fails.
    static func script(_ preparation: String) -> String { #"\#(preparation) || exit 99; exec "$@""# }
}
