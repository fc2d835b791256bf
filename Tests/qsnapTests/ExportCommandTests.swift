// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// The commands that read the disk.
struct ExportCommandTests {
    private func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

    @Test("A state goes to a file at its own size, and the command says so")
    func export() throws {
        let image = try TestImage()
        let output = image.folder.file("out")
        let text = try image.check("export", "first", output)
        #expect(text == "Exported snapshot 'first' of '\(image.path)' to '\(output)': 12 KiB.\n")
        #expect(try bytes(output) == image.content(of: .snapshot(.name("first"))))
        let object = try image.json("export", output, "--force")
        #expect(object["virtual-size"] as? Int == 12288 && object["output"] as? String == output)
        #expect(object["snapshot"] is NSNull && object["format"] as? String == "raw")
        #expect(try bytes(output) == image.content())
        for words in [
            ["--format", "qcow2"], ["--format=qcow2", "--compress"], ["--format=qcow2", "--compress=zstd"],
        ] {
            try image.check(["export", "id:1", output, "--force", "--sync"] + words)
            #expect(try bytes(output).prefix(4).elementsEqual([0x51, 0x46, 0x49, 0xFB]))
        }
        #expect(try Set(FileManager.default.contentsOfDirectory(atPath: image.folder.path)) == ["disk.qcow2", "out"])
    }

    @Test("Standard output gets every byte of the disk, and nothing else")
    func standardOutput() throws {
        let image = try TestImage()
        let file = image.folder.file("out")
        let result = try image.run(["export", "first", "-"], via: #""$@" > "\#(file)""#)
        #expect(result.status == 0 && result.errors.isEmpty)
        #expect(try bytes(file) == image.content(of: .snapshot(.name("first"))))
        try image.expectRefusal(["export", "-"], status: 1, saying: "standard output", via: #"exec "$@" >/dev/full"#)
    }

    @Test("What can't be done is refused, and leaves no file")
    func refusals() throws {
        let image = try TestImage()
        let output = image.folder.file("out")
        try image.expectRefusal(["export", "nosuch", output], status: 4, saying: "nosuch")
        try image.expectRefusal(["export", "first", image.path], status: 1, saying: "being read")
        try image.expectRefusal(["export", "first", image.path, "--force"], status: 1, saying: "being read")
        try image.expectRefusal(["export", "first", output, "--vm-state", "x"], status: 6, saying: "no VM state")
        for words in [
            [], ["a", "b", "c"], [output, "--compress"], ["-", "--format=qcow2"], [output, "--format=vmdk"],
            [output, "--vm-state=x"], ["first", output, "--vm-state", output], ["first", output, "--vm-state=-"],
        ] {
            #expect(try image.run(["export"] + words).status == 64, "\(words)")
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: image.folder.path) == ["disk.qcow2"])
    }

    @Test("A file that a program uses, or that the image names, is not replaced by force")
    func notReplaced() throws {
        let image = try TestImage("v3-512-backing")
        let output = image.folder.file("out")
        let raw = image.folder.file("backing.raw")
        try Data([UInt8](repeating: 0x77, count: 12288)).write(to: URL(fileURLWithPath: raw))
        try Data([9]).write(to: URL(fileURLWithPath: output))
        let holder = try FileStorage(path: output, for: .writing)
        try image.expectRefusal(["export", output, "--force"], status: 5, saying: "'\(output)' is in use by")
        #expect(try bytes(output) == [9])
        _ = consume holder
        try image.expectRefusal(["export", raw, "--force"], status: 1, saying: "being read")
        #expect(try bytes(raw) == [UInt8](repeating: 0x77, count: 12288))
        try image.check("export", output, "--force")
    }

    @Test(
        "A new file is on the disk before it has its name, and a folder that can't be flushed is a failure",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"))
    func flushed() throws {
        let image = try TestImage()
        let log = image.folder.file("log")
        func order(_ words: [String]) throws -> [String] {
            let script = Tracer.script("fcntl:retval=0:when=65535", log: log)
            #expect(try image.run(words, via: script).status == 0)
            let names = ["pwrite64", "fdatasync", "link", "rename", "fsync"]
            let lines = try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n")
            let calls = lines.compactMap { line in names.first { line.contains("\($0)(") } }
            return Array(calls[(calls.lastIndex(of: "pwrite64") ?? 0)...])
        }
        let output = image.folder.file("out")
        for words in [["export", output], ["export", output, "--sync"], ["diff", "first", "--export-rbd", output]] {
            try? FileManager.default.removeItem(atPath: output)
            #expect(try order(words) == ["pwrite64", "fdatasync", "link", "fsync"], "\(words)")
            try? FileManager.default.removeItem(atPath: output)
            #expect(try order(words.filter { $0 != "--sync" } + ["--no-sync"]) == ["pwrite64", "link"], "\(words)")
            for call in ["fsync", "fdatasync"] {
                try? FileManager.default.removeItem(atPath: output)
                try image.expectRefusal(
                    words, status: 1, saying: "Flushing", "Input/output error",
                    via: Tracer.script("\(call):error=EIO"))
                #expect(FileManager.default.fileExists(atPath: output) == (call == "fsync"))
            }
        }
        try Data([9]).write(to: URL(fileURLWithPath: output))
        #expect(try order(["export", output, "--force"]) == ["pwrite64", "fdatasync", "rename", "fsync"])
    }

    @Test("What is converted into is never what is read, though no lock says so")
    func converted() throws {
        let image = try TestImage("v3-512-backing")
        let raw = image.folder.file("backing.raw")
        try Data([UInt8](repeating: 0x77, count: 12288)).write(to: URL(fileURLWithPath: raw))
        let before = try image.bytes
        let link = image.folder.file("link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "backing.raw")
        for words in [
            ["-U", "-O", "raw", image.path, image.path], ["-U", "-O", "qcow2", image.path, image.path],
            ["-U", "-n", "-O", "raw", image.path, image.path], ["-U", "-n", "-O", "qcow2", image.path, image.path],
            ["-U", "-c", "-O", "qcow2", image.path, image.path], ["-U", "-O", "raw", image.path, link],
            ["-U", "-O", "qcow2", image.path, raw], ["-U", "-f", "raw", "-O", "raw", raw, link],
        ] {
            let result = try Command.run(["qemu-img", "convert"] + words)
            #expect(result.status == 1 && result.errors.contains("being read"), "\(words): \(result.errors)")
            #expect(try image.bytes == before)
            #expect(try bytes(raw) == [UInt8](repeating: 0x77, count: 12288))
        }
    }

    @Test("A backing file elsewhere needs a word, and one beside the image doesn't")
    func backing() throws {
        let image = try TestImage("v3-512-backing")
        let output = image.folder.file("out")
        try image.expectRefusal(["export", output], status: 1, saying: "backing.raw", "No such file")
        let elsewhere = try TemporaryFolder()
        let raw = [UInt8](repeating: 0x77, count: 12288)
        try Data(raw).write(to: URL(fileURLWithPath: elsewhere.file("backing.raw")))
        try FileManager.default.createSymbolicLink(
            atPath: image.folder.file("backing.raw"), withDestinationPath: elsewhere.file("backing.raw"))
        try image.expectRefusal(
            ["export", output], status: 6, saying: "backing.raw", "not allowed", "--allow-backing allows it.")
        try image.expectRefusal(["hash"], status: 6, saying: "--allow-backing allows it.")
        try image.check("export", output, "--allow-backing")
        let outside = try bytes(output)
        #expect(outside.contains(0x77) && outside.contains(0x11))
        try FileManager.default.removeItem(atPath: image.folder.file("backing.raw"))
        try Data(raw).write(to: URL(fileURLWithPath: image.folder.file("backing.raw")))
        try image.check("export", output, "--force")
        #expect(try bytes(output) == outside)
    }

    @Test(
        "A signal ends an export or a hash, also of a long range of zeros", arguments: ["TERM", "INT"],
        ["export", "hash"])
    func signal(_ name: String, _ verb: String) throws {
        // A pipe gets every zero, and nobody reads this one before the signal was sent.
        let folder = try TemporaryFolder()
        let path = folder.file("large.qcow2")
        guard Tool.isInstalled("qemu-img") else { return }
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", path, "1T"])
        let script = #""$@" > >(sleep 1; cat >/dev/null) & child=$!; sleep 0.5; kill -\#(name) $child; wait $child"#
        let result = try Command.run([verb, path] + (verb == "export" ? ["-"] : []), via: script)
        #expect(result.status == (name == "TERM" ? 143 : 130), "\(result.errors)")
        #expect(result.errors.contains("Interrupted"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["large.qcow2"])
    }

    @Test("A map has the extents of the state, for people and as JSON")
    func map() throws {
        let image = try TestImage()
        let lines = try image.check("map").split(separator: "\n")
        #expect(lines.first?.split(separator: " ").first == "START")
        #expect(lines.dropFirst().allSatisfy { $0.hasPrefix("0x") } && lines.count > 4)
        let object = try image.json("map", "first")
        #expect(object["virtual-size"] as? Int == 12288 && object["snapshot"] as? String == "first")
        #expect(object["files"] as? [String] == [image.path])
        let extents = try #require(object["extents"] as? [[String: Any]])
        let lengths = extents.compactMap { $0["length"] as? Int }
        #expect(lengths.reduce(0, +) == 12288 && lengths.count == extents.count)
        #expect(Set(extents.compactMap { $0["kind"] as? String }) == ["data", "compressed", "zero", "unallocated"])
        let zeros = extents.filter { $0["zero"] as? Bool == true }
        #expect(zeros.allSatisfy { $0["data"] as? Bool == false })
        #expect(extents.contains { $0["present"] as? Bool == false })
    }

    @Test("A hash is that of the exported disk", .enabled(if: Tool.isInstalled("sha256sum"), "needs sha256sum"))
    func hash() throws {
        let image = try TestImage()
        var sums: [String] = []
        for words in [[], ["first"]] {
            let output = image.folder.file("out")
            try image.check(["export"] + words + [output, "--force"])
            let sum = try Tool.check("sha256sum", [output]).prefix(64)
            #expect(try image.check(["hash"] + words).prefix(64) == sum)
            sums.append(String(sum))
        }
        let all = try image.check("hash", "--all").split(separator: "\n")
        #expect(all == ["\(sums[0])  active", "\(sums[1])  1 first"])
        let states = try #require(image.json("hash", "--all")["states"] as? [[String: Any]])
        #expect(states.compactMap { $0["sha256"] as? String } == sums)
    }
}
