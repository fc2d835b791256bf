// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Names are bytes: no verb takes one for another that Unicode calls equal, or that begins with a character which
/// merges with what stands before it.
@Suite struct NameBytesTests {
    /// A name, and the one that it must not be taken for.
    struct Pair: Sendable, CustomTestStringConvertible {
        let name: String
        let other: String
        var testDescription: String { name.unicodeScalars.map { String($0.value, radix: 16) }.joined(separator: " ") }
    }

    static let pairs =
        ["\u{301}", "\u{200D}", "\u{FE0F}", "\u{903}", "\u{E0101}", "\u{1F3FB}"].map {
            Pair(name: "\($0)x", other: "x")
        } + [
            Pair(name: "e\u{301}", other: "\u{E9}"), Pair(name: "\u{E9}", other: "e\u{301}"),
            Pair(name: "\u{212A}", other: "K"), Pair(name: "\u{1112}\u{1161}\u{11AB}", other: "\u{D55C}"),
            Pair(name: "x\u{301}", other: "x"), Pair(name: "x\u{200D}", other: "x"),
        ]

    /// An image with the snapshots first (ID 1), the pair's other (2) and its name (3), each with a first sector of its
    /// own number, and an active state of nines.
    private func image(_ pair: Pair) throws -> TestImage {
        let result = try TestImage()
        var image = try Image(storage: InMemoryStorage(result.bytes))
        for (number, name) in [(UInt8(2), pair.other), (3, pair.name)] {
            try image.write([UInt8](repeating: number, count: 512), at: GuestOffset(0))
            #expect(try image.createSnapshot(named: name).id == "\(number)")
        }
        try image.write([UInt8](repeating: 9, count: 512), at: GuestOffset(0))
        try image.flush()
        let storage = image.close()
        try result.patch { $0 = storage.bytes }
        return result
    }

    private func nameBytes(_ image: TestImage) throws -> [[UInt8]] { try image.snapshots.map(\.nameBytes) }

    @Test("Created names differ by their bytes alone", arguments: pairs)
    func create(_ pair: Pair) throws {
        let image = try TestImage()
        try image.check("create", pair.other)
        let object = try image.json("create", pair.name)["created"] as? [String: Any]
        #expect((object?["name"] as? String).map { Array($0.utf8) } == Array(pair.name.utf8))
        #expect(try nameBytes(image).dropFirst() == [Array(pair.other.utf8), Array(pair.name.utf8)])
        try image.expectRefusal(["create", pair.name], status: 1, saying: "already a snapshot")
    }

    @Test("apply takes the snapshot of these bytes, and saves under these bytes", arguments: pairs)
    func apply(_ pair: Pair) throws {
        for selector in [pair.name, "name:\(pair.name)", "id:3"] {
            let image = try image(pair)
            try image.check("apply", selector)
            #expect(try image.content()[0] == 3)
        }
        let image = try image(pair)
        try image.check("delete", "id:3")
        try image.check("apply", "id:2", "--save-current=\(pair.name)")
        #expect(try nameBytes(image).last == Array(pair.name.utf8))
        #expect(try image.content(of: .snapshot(.name(pair.name)))[0] == 9)
    }

    @Test("delete takes the snapshot of these bytes", arguments: pairs)
    func delete(_ pair: Pair) throws {
        for selector in [pair.name, "name:\(pair.name)"] {
            let image = try image(pair)
            try image.check("delete", selector)
            #expect(try image.snapshots.map(\.id) == ["1", "2"])
            try image.expectRefusal(["delete", selector], status: 4, saying: "no snapshot")
            // What merges with the colon is not the other snapshot's ID, either.
            try image.expectRefusal(["delete", "id:\(pair.name)"], status: 4, saying: "no snapshot")
        }
    }

    @Test("rename takes and gives these bytes", arguments: pairs)
    func rename(_ pair: Pair) throws {
        let image = try image(pair)
        try image.check("rename", "name:\(pair.name)", "y")
        #expect(try nameBytes(image).dropFirst() == [Array(pair.other.utf8), Array("y".utf8)])
        try image.check("rename", "y", pair.name)
        try image.check("rename", "name:\(pair.other)", "z")
        #expect(try nameBytes(image).dropFirst() == [Array("z".utf8), Array(pair.name.utf8)])
    }

    @Test("The verbs that read take the snapshot of these bytes", arguments: pairs)
    func reading(_ pair: Pair) throws {
        let image = try image(pair)
        for selector in [pair.name, "name:\(pair.name)"] {
            let output = image.folder.file("raw")
            try image.check("export", selector, output, "--force")
            #expect(try Data(contentsOf: URL(fileURLWithPath: output))[0] == 3)
            #expect(try image.check("hash", selector).prefix(64) == image.check("hash", "id:3").prefix(64))
            #expect(try image.check("hash", selector).prefix(64) != image.check("hash", "id:2").prefix(64))
            #expect(try image.check("map", selector) == image.check("map", "id:3"))
            let changes = try image.json("diff", "name:\(pair.other)", selector)
            #expect((changes["extents"] as? [Any])?.count == 1)
            #expect((changes["to"] as? String).map { Array($0.utf8) } == Array(selector.utf8))
            for words in [["--deleting", selector], ["--deleting=\(selector)"]] {
                let object = try jsonObject(image.check(["usage"] + words + ["--json"]))
                let deleted = (object["deleting"] as? [String: Any])?["snapshots"] as? [[String: Any]]
                #expect(deleted?.map { $0["id"] as? String } == ["3"])
            }
        }
        let listed = try image.json("list")["images"] as? [[String: Any]]
        let names = (listed?.first?["snapshots"] as? [[String: Any]])?.compactMap { $0["name"] as? String }
        #expect(names?.map { Array($0.utf8) } == [Array("first".utf8), Array(pair.other.utf8), Array(pair.name.utf8)])
    }

    @Test("The drop-in takes the snapshot of these bytes", arguments: pairs)
    func dropIn(_ pair: Pair) throws {
        let image = try image(pair)
        func run(_ option: String, _ name: String) throws {
            let result = try Command.run(["qemu-img", "snapshot", option, name, image.path])
            #expect(result.status == 0, "\(result.errors)")
        }
        try run("-a", pair.name)
        #expect(try image.content()[0] == 3)
        try run("-d", pair.name)
        #expect(try image.snapshots.map(\.id) == ["1", "2"])
        try run("-c", pair.name)
        #expect(try nameBytes(image).last == Array(pair.name.utf8))
        try run("-d", pair.other)
        #expect(try image.snapshots.map(\.id) == ["1", "3"])
    }

    @Test("The drop-in's option strings are split at bytes")
    func optionStrings() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("\u{301}disk.qcow2")
        try Data(TestImage().bytes).write(to: URL(fileURLWithPath: path))
        for words in [
            ["info", "--image-opts", "driver=qcow2,file.filename=\(path)"], ["info", "file:\(path)"],
            ["info", #"json:{"driver": "qcow2", "file.filename": "\#(path)"}"#],
        ] {
            let result = try Command.run(["qemu-img"] + words)
            #expect(result.status == 0, "\(result.errors)")
        }
        // In the folder itself, so that the word begins with what merges.
        let script = #"cd '\#(folder.path)' && exec "$@""#
        for words in [
            ["info", "--image-opts", "driver=qcow2,file.filename=\u{301}disk.qcow2"],
            ["info", "file:\u{301}disk.qcow2"],
        ] {
            let result = try Command.run(["qemu-img"] + words, via: script)
            #expect(result.status == 0, "\(result.errors)")
        }
    }

    @Test("Files whose names Unicode calls equal are different files")
    func files() throws {
        let image = try TestImage()
        try image.check("create", "x")
        let (composed, decomposed) = (image.folder.file("\u{E9}"), image.folder.file("e\u{301}"))
        try image.check("export", "x", composed)
        try image.check("export", "x", decomposed)
        #expect(try FileManager.default.contentsOfDirectory(atPath: image.folder.path).count == 3)
    }
}
