// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

@Suite struct ListTests {
    /// The image with all columns filled.
    private func image() throws -> TestImage {
        let image = try TestImage()
        try image.add("before-upgrade")
        try image.patch { bytes in
            let table = bytes.snapshotTable
            bytes.store(UInt32(1_000_000_000), at: table + 16)
            bytes.store(UInt32(123), at: table + 20)
            bytes.store(UInt64(3_723_004_000_000), at: table + 24)
            bytes.store(UInt64(1536 << 20), at: table + 40)
        }
        return image
    }

    @Test("People get a table with aligned columns", arguments: [("UTC", "01:46:40"), ("UTC-2", "03:46:40")])
    func table(_ zone: String, _ time: String) throws {
        let result = try image().run(["list"], environment: ["TZ": zone])
        let lines = result.output.split(separator: "\n")
        #expect(result.status == 0 && result.errors.isEmpty && result.output.hasSuffix("\n"))
        try #require(lines.count == 3)
        #expect(lines[0] == "ID  NAME            DATE                 VM SIZE  VM CLOCK      DISK SIZE")
        #expect(lines[1] == "1   first           2001-09-09 \(time)  1.5 GiB  01:02:03.004  12 KiB")
        #expect(lines[2].hasPrefix("2   before-upgrade  20") && lines[2].hasSuffix("  -        -             12 KiB"))
    }

    @Test("JSON has the documented keys and exact values")
    func json() throws {
        let image = try image()
        let object = try image.json("list")
        #expect(Set(object.keys) == ["images"])
        let images = try #require(object["images"] as? [[String: Any]])
        try #require(images.count == 1)
        #expect(Set(images[0].keys) == ["image", "virtual-size", "snapshots"])
        #expect(images[0]["image"] as? String == image.path)
        #expect(images[0]["virtual-size"] as? Int == 12288)
        let snapshots = try #require(images[0]["snapshots"] as? [[String: Any]])
        #expect(snapshots.map { $0["id"] as? String } == ["1", "2"])
        let first = NSDictionary(dictionary: snapshots[0])
        #expect(
            first == [
                "id": "1", "name": "first", "date": "2001-09-09T01:46:40.000000123Z", "date-sec": 1_000_000_000,
                "date-nsec": 123, "disk-size": 12288, "vm-state-size": 1536 << 20,
                "vm-clock-nsec": 3_723_004_000_000, "icount": 0,
            ])
        #expect(snapshots[1]["icount"] is NSNull)
    }

    @Test("An image without snapshots says so")
    func none() throws {
        let image = try TestImage("v3-512-refcount1")
        #expect(try image.check("list") == "No snapshots.\n")
        let images = try #require(try image.json("list")["images"] as? [[String: Any]])
        #expect((images[0]["snapshots"] as? [Any])?.isEmpty == true)
    }

    @Test("Several images have headings, and bad ones don't keep the good ones from being listed")
    func several() throws {
        let (one, two) = (try TestImage(), try TestImage("v3-512-refcount1"))
        let (raw, missing) = (one.folder.file("raw"), one.folder.file("missing"))
        try Data(count: 4096).write(to: URL(fileURLWithPath: raw))

        let result = try Command.run(["list", one.path, raw, two.path, missing])
        #expect(result.status == 7, "the status of the first failure")
        #expect(result.output.hasPrefix("\(one.path):\nID  NAME "))
        #expect(result.output.hasSuffix("\n\n\(two.path):\nNo snapshots.\n"))
        let errors = result.errors.split(separator: "\n")
        try #require(errors.count == 2)
        #expect(errors[0].contains("'\(raw)'") && errors[1].contains("'\(missing)'"))

        let json = try Command.run(["list", "--json", one.path, raw, two.path])
        #expect(json.status == 7)
        let images = try #require(try jsonObject(json.output)["images"] as? [[String: Any]])
        #expect(images.map { $0["image"] as? String } == [one.path, two.path])
    }

    @Test(
        "Names that no terminal should get are escaped",
        arguments: [
            ([0x1B, 0x5B, 0x32, 0x4A, 0x07], "\\u{1b}[2J\\u{7}", nil),
            ([0x61, 0x0A, 0x09, 0x0D, 0x62], "a\\u{a}\\u{9}\\u{d}b", nil),
            ([0x61, 0xFF, 0xC3, 0x28, 0x62], "a\u{FFFD}\u{FFFD}(b", "61ffc32862"),
            ([0x22, 0x5C, 0x7F, 0x00, 0x2F], "\"\\\\u{7f}\\u{0}/", nil),
        ] as [([UInt8], String, String?)])
    func oddNames(_ name: [UInt8], _ shown: String, _ hexadecimal: String?) throws {
        let image = try TestImage { try $0.replace("first", with: name, from: $0.snapshotTable) }
        #expect(try image.check("list").contains("\n1   \(shown)  20"))
        let object = try #require(try image.json("list")["images"] as? [[String: Any]])
        let snapshot = try #require((object[0]["snapshots"] as? [[String: Any]])?.first)
        #expect(snapshot["name"] as? String == String(decoding: name, as: UTF8.self))
        #expect(snapshot["name-hex"] as? String == hexadecimal)
        // Whatever the name, the ID reaches it.
        try image.check("rename", "id:1", "plain")
        #expect(try image.names == ["plain"])
    }
}
