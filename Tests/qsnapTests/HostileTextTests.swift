// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// What an image's maker may write into it, and no output may hand on.
@Suite struct HostileTextTests {
    /// Names that hide or turn something.
    static let names = [
        "a\u{202E}gpj.exe", "\u{2066}x\u{2069}", "pa\u{200B}ssword", "a\u{200D}b", "x\u{FEFF}", "tag\u{E0041}\u{E007F}",
        "line\u{2028}x\u{2029}", "soft\u{AD}hyphen", "\u{3164}", "v\u{FE0F}", "\u{301}mark",
    ]

    /// An image with a snapshot of that name; C1 controls only get there by other programs.
    private func image(_ name: String) throws -> TestImage {
        let image = try TestImage()
        try image.add(name)
        return image
    }

    /// Every way of a command that prints a name, and leaves the image as it is.
    private static let commands = [
        ["list"], ["list", "--usage"], ["check"], ["inspect"], ["inspect", "--dump"], ["usage"],
        ["usage", "--deleting", "id:2"], ["hash", "--all"], ["hash", "--manifest"], ["delete", "id:2", "--dry-run"],
        ["apply", "id:2"], ["rename", "id:2", "plain"],
    ]

    @Test("No command prints a hidden character, as text or as JSON", arguments: names)
    func hidden(_ name: String) throws {
        for command in Self.commands {
            let words = command
            for more in [[], ["--json"]] {
                let result = try image(name).run(words + more)
                #expect(result.status == 0, "\(result.errors)")
                let hidden = (result.output + result.errors).unicodeScalars.filter {
                    EscapedText.isHidden($0) && $0 != "\n"
                }
                #expect(hidden.isEmpty, "\(words + more): \(hidden.map { String($0.value, radix: 16) })")
            }
        }
    }

    @Test("JSON gives the name back, byte for byte", arguments: names)
    func roundTrip(_ name: String) throws {
        let images = try image(name).json("list")["images"] as? [[String: Any]]
        let snapshots = images?.first?["snapshots"] as? [[String: Any]]
        #expect((snapshots?.last?["name"] as? String).map { Array($0.utf8) } == Array(name.utf8))
    }

    @Test("C1 controls are escaped in JSON")
    func controls() throws {
        let image = try TestImage {
            try $0.replace("first", with: Array("\u{9B}2J\u{85}".utf8.prefix(5)), from: $0.snapshotTable)
        }
        let output = try image.check("list", "--json")
        #expect(output.contains(#""\u009b2J"#) && !output.unicodeScalars.contains { $0.value == 0x9B })
    }

    @Test("A message that refuses prints nothing hidden")
    func messages() throws {
        let image = try TestImage()
        let result = try image.run(["delete", "no\u{202E}such\u{200B}"])
        #expect(result.errors.contains(#"'no\u{202e}such\u{200b}'"#))
    }

    @Test("Cells and messages are bounded, and JSON is whole")
    func bounded() throws {
        let name = String(repeating: "n", count: 255)
        let image = try image(name)
        for words in [["list"], ["usage"], ["inspect"], ["inspect", "--dump"], ["usage", "--deleting", "id:2"]] {
            let output = try image.check(words)
            #expect(!output.contains(String(repeating: "n", count: 60)), "\(words)")
            #expect(output.contains(String(repeating: "n", count: 59) + "\u{2026}"), "\(words)")
            #expect(try image.check(words.filter { $0 != "--dump" } + ["--json"]).contains(name))
        }
        try image.expectRefusal(["delete", "no" + name], status: 4, saying: "\u{2026}'")
        #expect(try image.check("rename", "id:2", "plain").utf8.count < 200 + image.path.utf8.count)
    }

    @Test("A damaged length makes no line of the inspection long")
    func damagedLength() throws {
        let image = try TestImage {
            let place = $0.snapshotTable + 14
            $0 += [UInt8](repeating: UInt8(ascii: "A"), count: 300_000)
            $0.store(UInt16.max, at: place)
            $0.store(UInt16.max, at: place - 2)
        }
        for words in [["inspect"], ["inspect", "--dump"], ["check"]] {
            let result = try image.run(words)
            let longest = result.output.split(separator: "\n").map(\.utf8.count).max() ?? 0
            #expect(longest < 400 + image.path.utf8.count, "\(words): \(longest)")
        }
    }
}
