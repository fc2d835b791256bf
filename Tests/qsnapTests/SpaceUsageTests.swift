// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// `qsnap usage` and `qsnap list --usage`.
@Suite struct SpaceUsageTests {
    private func image() throws -> TestImage {
        let image = try TestImage()
        try image.add("second")
        return image
    }

    @Test("People get a table of states, the file, and what deleting frees")
    func text() throws {
        let image = try image()
        let lines = try image.check("usage", "--deleting", "first", "id:2").split(separator: "\n")
        #expect(lines[0].split(separator: " ").joined(separator: " ") == "ID NAME DISK SIZE MAPPED ONLY HERE SHARED")
        #expect(lines[1].hasPrefix("-   (active)  12 KiB"))
        #expect(lines[2].hasPrefix("1   first") && lines[3].hasPrefix("2   second"))
        for title in ["File", "Data", "Metadata", "Free inside"] {
            #expect(lines.contains { $0.hasPrefix(title) })
        }
        #expect(try #require(lines.last).hasPrefix("Deleting 'first' (ID 1), 'second' (ID 2) would free "))
    }

    @Test("JSON has the documented keys, and the numbers of the library")
    func json() throws {
        let image = try image()
        let object = try image.json("usage", "--deleting", "first")
        #expect(Set(object.keys) == ["image", "active", "snapshots", "file", "deleting"])
        let usage = try Image(storage: InMemoryStorage(image.bytes)).usage()
        let active = NSDictionary(dictionary: try #require(object["active"] as? [String: Any]))
        #expect(
            active == [
                "disk-size": 12288, "mapped-bytes": usage.active.mappedByteCount,
                "exclusive-bytes": usage.active.exclusiveByteCount, "shared-bytes": usage.active.sharedByteCount,
                "compressed-bytes": usage.active.compressedByteCount,
                "compressed-stored-bytes": usage.active.compressedStoredByteCount,
            ])
        let snapshots = try #require(object["snapshots"] as? [[String: Any]])
        #expect(snapshots.map { $0["name"] as? String } == ["first", "second"])
        #expect(snapshots.map { $0["exclusive-bytes"] as? UInt64 } == usage.snapshots.map(\.exclusiveByteCount))
        let file = try #require(object["file"] as? [String: Any])
        #expect(
            Set(file.keys) == [
                "file-size", "allocated-bytes", "data-bytes", "metadata-bytes", "metadata", "free-bytes",
                "leaked-bytes",
            ])
        #expect(file["data-bytes"] as? UInt64 == usage.file.dataByteCount)
        #expect((file["allocated-bytes"] as? UInt64 ?? 0) > 0)
        let deleting = try #require(object["deleting"] as? [String: Any])
        let freed = try #require(deleting["freed-bytes"] as? Int)
        let before = try UsageModel.usedByteCount(image.bytes, clusterSize: 512)
        try image.check("delete", "first")
        #expect(try before - UsageModel.usedByteCount(image.bytes, clusterSize: 512) == freed)
    }

    @Test("The list has the same numbers when asked")
    func list() throws {
        let image = try image()
        #expect(try image.check("list", "--usage").hasPrefix("ID  NAME    DATE "))
        #expect(
            try #require(image.check("list", "--usage").split(separator: "\n").first).hasSuffix("ONLY HERE  SHARED"))
        let images = try #require(try image.json("list", "--usage")["images"] as? [[String: Any]])
        let snapshots = try #require(images.first?["snapshots"] as? [[String: Any]])
        let usage = try Image(storage: InMemoryStorage(image.bytes)).usage()
        #expect(snapshots.map { $0["exclusive-bytes"] as? UInt64 } == usage.snapshots.map(\.exclusiveByteCount))
        #expect(snapshots.allSatisfy { $0["disk-size"] as? Int == 12288 })
    }

    @Test("A snapshot that isn't there is refused")
    func refused() throws {
        try image().expectRefusal(["usage", "--deleting", "third"], status: 4, saying: "no snapshot 'third'")
    }
}
