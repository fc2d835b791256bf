// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

@Suite struct DeleteTests {
    /// An image with the snapshots first, b, c and d; b is a week old, c an hour.
    private func image() throws -> TestImage {
        let image = try TestImage { $0.store(UInt32(1_000_000_000), at: $0.snapshotTable + 16) }
        try image.add("b", secondsAgo: 7 * 86400 + 60)
        try image.add("c", secondsAgo: 3600 + 60)
        try image.add("d")
        return image
    }

    static let ways: [([String], remaining: [String])] = [
        (["c"], ["first", "b", "d"]), (["d", "id:1", "name:b", "1"], ["c"]), (["--all"], []),
        (["--keep-last", "0"], []), (["--keep-last=3"], ["b", "c", "d"]),
        (["--keep-last", "9"], ["first", "b", "c", "d"]), (["--older-than", "1h"], ["d"]),
        (["--older-than", "3600s"], ["d"]), (["--older-than=2h"], ["c", "d"]), (["--older-than", "60m"], ["d"]),
        (["--older-than", "7d"], ["c", "d"]), (["--older-than", "2w"], ["b", "c", "d"]),
        (["--older-than", "9999w"], ["first", "b", "c", "d"]),
    ]

    @Test("Snapshots go, the others and the disk stay; a dry run changes nothing", arguments: ways)
    func delete(_ words: [String], _ remaining: [String]) throws {
        let image = try image()
        let (content, bytes) = (try image.content(), try image.bytes)
        let gone = try image.names.filter { !remaining.contains($0) }

        for flag in ["--dry-run", "-n"] {
            let result = try image.run(["delete", flag] + words)
            #expect(result.status == 0 && result.errors.isEmpty)
            #expect(result.output.hasPrefix(gone.isEmpty ? "No snapshot to delete in '" : "Would delete from '"))
            #expect(gone.allSatisfy { result.output.contains("'\($0)' (ID ") })
            #expect(!remaining.contains { result.output.contains("'\($0)' (ID ") })
        }
        #expect(try image.bytes == bytes)

        let result = try image.run(["delete"] + words)
        #expect(result.status == 0 && result.errors.isEmpty)
        #expect(result.output.hasPrefix(gone.isEmpty ? "No snapshot to delete in '" : "Deleted from '\(image.path)': "))
        #expect(try image.names == remaining)
        #expect(try image.content() == content)
        if gone.isEmpty { #expect(try image.bytes == bytes) }
    }

    @Test("JSON says what was deleted", arguments: [true, false])
    func json(_ dryRun: Bool) throws {
        let image = try image()
        let object = try dryRun ? image.json("delete", "c", "1", "-n") : image.json("delete", "c", "1")
        #expect(Set(object.keys) == ["image", "deleted", "dry-run"])
        #expect(object["dry-run"] as? Bool == dryRun)
        let deleted = try #require(object["deleted"] as? [[String: Any]])
        #expect(deleted.map { $0["name"] as? String } == ["first", "c"])
        #expect(try image.names.count == (dryRun ? 4 : 2))
    }

    @Test("A selector that fails keeps the others from being deleted", arguments: [[], ["--dry-run"]])
    func missing(_ flags: [String]) throws {
        try image().expectRefusal(["delete", "first", "nosuch"] + flags, status: 4, saying: "no snapshot 'nosuch'")
    }

    @Test(
        "Snapshots that no selector tells apart can be deleted together",
        arguments: ["same ID", "same name", "same ID and name", "no UTF-8"])
    func alike(_ kind: String) throws {
        func twins() throws -> TestImage {
            let image = try TestImage()
            try image.add("third")
            try image.patch { bytes in
                let second = bytes.snapshotTable + 40 + 24 + 6 + 2  // The first entry has 70 bytes and 2 of padding.
                if kind.contains("ID") { bytes[second + 64] = UInt8(ascii: "1") }
                if kind.contains("name") { try bytes.replace("third", with: "first".utf8, from: second) }
                if kind == "no UTF-8" {
                    bytes[second + 64] = 0xFF
                    try bytes.replace("third", with: [0xFE, 0xFE, 0xFE, 0xFE, 0xFE], from: second)
                }
            }
            return image
        }
        let dry = try twins()
        #expect((try dry.json("delete", "--all", "-n")["deleted"] as? [Any])?.count == 2)
        #expect(try dry.snapshots.count == 2)
        for (words, count) in [("--all", 0), ("--keep-last=1", 1), ("--keep-last=0", 0)] {
            let image = try twins()
            let content = try image.content()
            #expect((try image.json("delete", words)["deleted"] as? [Any])?.count == 2 - count)
            #expect(try image.snapshots.count == count)
            #expect(try image.content() == content)
        }
    }

    @Test("Freed space is given back to the file system, unless the user declines")
    func discard() throws {
        func zerosAfterDeletion(_ flags: [String]) throws -> Int {
            let image = try TestImage("demo")
            try image.check(["delete", "--all"] + flags)
            return try image.bytes.count { $0 == 0 }
        }
        let discarding = try zerosAfterDeletion([])
        #expect(try zerosAfterDeletion(["--discard"]) == discarding)
        #expect(try zerosAfterDeletion(["--no-discard"]) < discarding)
    }
}
