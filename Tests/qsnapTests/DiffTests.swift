// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

@Suite struct DiffTests {
    private func expected(_ image: TestImage) throws -> ([ChangedExtent], DiskDifference) {
        let opened = try Image(storage: InMemoryStorage(image.bytes))
        var extents: [ChangedExtent] = []
        let difference = try opened.diff(from: .snapshot(.name("first"))) { extents.append($0) }
        return (extents, difference)
    }

    @Test("People get a line for each extent, and the sum")
    func text() throws {
        let image = try TestImage()
        let (extents, difference) = try expected(image)
        try #require(!extents.isEmpty)
        let lines = try image.check("diff", "first").split(separator: "\n").map {
            $0.split(separator: " ").map(String.init)
        }
        #expect(lines.first == ["START", "LENGTH", "KIND"])
        #expect(
            Array(lines.dropFirst().dropLast())
                == extents.map { ["\($0.start.rawValue)", "\($0.byteCount)", $0.kind.rawValue] })
        #expect(lines.last?.contains("(\(difference.changedByteCount)") == true)
        #expect(
            try image.check("diff", "first", "first") == "0 B (0 bytes) changed in 0 extents from 'first' to 'first'.\n"
        )
    }

    @Test("JSON has the documented keys and exact values")
    func json() throws {
        let image = try TestImage()
        let (extents, difference) = try expected(image)
        let object = try image.json("diff", "first")
        #expect(
            Set(object.keys) == [
                "image", "from", "to", "exact", "extents", "old-size", "new-size", "changed-bytes", "extent-count",
            ])
        #expect(object["from"] as? String == "first" && object["to"] is NSNull && object["exact"] as? Bool == false)
        #expect(object["changed-bytes"] as? UInt64 == difference.changedByteCount)
        let listed = try #require(object["extents"] as? [[String: Any]])
        #expect(listed.map { $0["start"] as? UInt64 } == extents.map(\.start.rawValue))
        #expect(listed.map { $0["length"] as? UInt64 } == extents.map(\.byteCount))
        #expect(listed.map { $0["kind"] as? String } == extents.map(\.kind.rawValue))
        #expect((try image.json("diff", "first", "first")["extents"] as? [Any])?.isEmpty == true)
        #expect(try image.json("diff", "--full", "first")["from"] is NSNull)
    }

    @Test("A stream for Ceph turns one state into the other, from a file and from standard output")
    func rbd() throws {
        let image = try TestImage()
        let (old, new) = (try image.content(of: .snapshot(.name("first"))), try image.content())
        let file = image.folder.file("changes")
        let said = try image.check("diff", "first", "--export-rbd", file)
        #expect(said.hasPrefix("Exported the changes to '\(file)': "))
        let stream = [UInt8](try Data(contentsOf: URL(fileURLWithPath: file)))
        let applied = try RBDDiffReader(stream, appliedTo: old)
        #expect(applied.disk == new && applied.from == "first" && applied.to == nil)
        #expect(try FileManager.default.contentsOfDirectory(atPath: image.folder.path).count == 2)

        let whole = image.folder.file("whole")
        let words = ["diff", "--full", "first", "--exact", "--export-rbd", "-"]
        _ = try image.run(words, via: "\"$@\" > '\(whole)'")
        let all = try RBDDiffReader([UInt8](try Data(contentsOf: URL(fileURLWithPath: whole))), appliedTo: [])
        #expect(all.disk == old && all.from == nil && all.to == "first")

        // What is there already is left alone.
        let again = try image.run(["diff", "first", "--export-rbd", file])
        expectOneSentence(again, status: 1, naming: file, ["there already"])
        #expect([UInt8](try Data(contentsOf: URL(fileURLWithPath: file))) == stream)
    }

    @Test("A failure leaves no file")
    func failure() throws {
        let image = try TestImage()
        let file = image.folder.file("changes")
        try image.patch { bytes in
            // The active L2 table's first entry points behind the end.
            let l1Table = bytes[40..<48].reduce(0) { $0 << 8 | Int($1) }
            let l2Table = bytes[l1Table..<(l1Table + 8)].reduce(0) { $0 << 8 | Int($1) } & 0x00FF_FFFF_FFFF_FE00
            bytes.store(UInt64(0x00FF_0000_0000_0000), at: l2Table)
        }
        let result = try image.run(["diff", "--full", "--export-rbd", file])
        #expect(result.status == 2, "\(result.errors)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: image.folder.path) == ["disk.qcow2"])
    }

    @Test("Wrong words are refused", arguments: [["diff"], ["diff", "a", "b", "c"], ["diff", "--full", "a", "b"]])
    func usage(_ words: [String]) throws {
        #expect(try TestImage().run(words).status == 64)
    }

    @Test("A snapshot that isn't there is refused")
    func refused() throws {
        try TestImage().expectRefusal(["diff", "third"], status: 4, saying: "no snapshot 'third'")
    }
}
