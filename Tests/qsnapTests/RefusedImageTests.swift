// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// Files that aren't what they should be.
@Suite struct RefusedImageTests {
    /// A damage, with what every verb and what only writing verbs must answer.
    struct Damage: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let status: Int32
        let words: String
        var isListed = false
        let change: @Sendable (inout [UInt8]) throws -> Void
    }

    static let damages: [Damage] = [
        Damage(testDescription: "raw disk", status: 7, words: "not a qcow2 image") {
            $0 = Array(repeating: 0, count: 4096)
        },
        Damage(testDescription: "empty file", status: 7, words: "not a qcow2 image") { $0 = [] },
        Damage(testDescription: "text", status: 7, words: "not a qcow2 image") { $0 = Array("QFI, but text\n".utf8) },
        Damage(testDescription: "magic alone", status: 7, words: "not a qcow2 image") { $0 = Array($0.prefix(4)) },
        Damage(testDescription: "half a header", status: 2, words: "header needs") { $0 = Array($0.prefix(40)) },
        Damage(testDescription: "version 1", status: 6, words: "version 1;") { $0.store(UInt32(1), at: 4) },
        Damage(testDescription: "version 4", status: 6, words: "version 4;") { $0.store(UInt32(4), at: 4) },
        Damage(testDescription: "unknown feature", status: 6, words: "bit 63") { $0[72] = 0x80 },
        Damage(testDescription: "named unknown feature", status: 6, words: "'time travel'") {
            nameFeature("time travel", in: &$0)
        },
        Damage(testDescription: "unknown feature with a hostile name", status: 6, words: "'\\u{1b}[2J'") {
            nameFeature("\u{1B}[2J", in: &$0)
        },
        Damage(testDescription: "external data file", status: 6, words: "external data file", isListed: true) {
            $0[79] = 1 << 2
        },
        Damage(testDescription: "dirty", status: 2, words: "marked dirty", isListed: true) { $0[79] = 1 },
        Damage(testDescription: "corrupt", status: 2, words: "marked corrupt", isListed: true) { $0[79] = 1 << 1 },
        Damage(testDescription: "cut in the snapshot table", status: 2, words: "snapshot table") {
            $0 = Array($0.prefix($0.snapshotTable + 50))
        },
        Damage(testDescription: "cut before the snapshot table", status: 2, words: "past the end of the file") {
            $0 = Array($0.prefix($0.snapshotTable))
        },
        Damage(testDescription: "snapshot table nowhere", status: 2, words: "past the end of the file") {
            $0.store(UInt64(1) << 40, at: 64)
        },
        Damage(testDescription: "misaligned table", status: 2, words: "not a multiple") { $0[71] = 1 },
        Damage(testDescription: "absurd cluster size", status: 2, words: "outside 9 to 21") { $0[23] = 40 },
    ]

    /// Sets incompatible feature 5, and names it in a feature name table behind the header.
    private static func nameFeature(_ name: String, in bytes: inout [UInt8]) {
        bytes[79] = 1 << 5
        bytes.store(UInt32(0x6803_F857), at: 112)
        bytes.store(UInt32(48), at: 116)
        bytes.replaceSubrange(120..<122, with: [0, 5])
        bytes.replaceSubrange(122..<(122 + name.utf8.count), with: name.utf8)
    }

    @Test("Every verb refuses in one sentence and touches nothing", arguments: damages)
    func refused(_ damage: Damage) throws {
        let image = try TestImage("v3-512", damage.change)
        for words in writingVerbs { try image.expectRefusal(words, status: damage.status, saying: damage.words) }
        if damage.isListed {
            #expect(try image.check("list").contains("first"))
            #expect(try image.check("delete", "-n", "--all").hasPrefix("Would delete"))
        } else {
            for words in [["list"], ["list", "--json"], ["list", "--force-share"], ["delete", "--all", "-n"]] {
                let result = try image.run(words)
                #expect(result.status == damage.status && !result.wasKilled)
                #expect(result.errors.contains(damage.words) && result.errors.contains(image.path))
            }
        }
    }

    @Test(
        "What isn't a file is refused by name",
        arguments: [
            (".", "directory"), ("nosuch", "No such file or directory; check the path"),
            ("disk.qcow2/x", "check the path"),
            ("/dev/null", "a device"), ("pipe", "a pipe or socket"), ("loop", "symbolic links"),
            ("a\nb", "a\\u{a}b' failed: No such file"),
        ])
    func noFile(_ name: String, _ words: String) throws {
        let image = try TestImage()
        let path = name.hasPrefix("/") ? name : image.folder.file(name)
        if name == "pipe" { #expect(mkfifo(path, 0o600) == 0) }
        if name == "loop" { #expect(symlink(path, path) == 0) }
        for verb in writingVerbs {
            let result = try Command.run([verb[0], path] + verb.dropFirst())
            expectOneSentence(result, status: 1, naming: path.replacingOccurrences(of: "\n", with: "\\u{a}"), [words])
        }
        let list = try Command.run(["list", path])
        #expect(list.status == 1 && list.output.isEmpty && list.errors.contains(words))
    }

    @Test("A symbolic link to an image is followed, and stays a link")
    func link() throws {
        let image = try TestImage()
        let link = image.folder.file("link")
        #expect(symlink("disk.qcow2", link) == 0)
        #expect(try Command.run(["create", link, "new"]).status == 0)
        #expect(try image.names == ["first", "new"])
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == "disk.qcow2")
    }
}
