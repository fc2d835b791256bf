// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import TestTools
import Testing

@Suite struct ApplyTests {
    @Test("The disk becomes what it was")
    func apply() throws {
        let image = try TestImage()
        let old = try image.content(of: .snapshot(.name("first")))
        #expect(try image.content() != old)
        #expect(try image.check("apply", "first") == "Applied snapshot 'first' to '\(image.path)'.\n")
        #expect(try image.content() == old)
        #expect(try image.names == ["first"])
    }

    @Test(
        "The current state is kept under a name", arguments: [["--save-current", "broken"], ["--save-current=broken"]])
    func saveNamed(_ words: [String]) throws {
        let image = try TestImage()
        let current = try image.content()
        let result = try image.run(["apply", "first"] + words)
        #expect(
            result.output
                == "Applied snapshot 'first' to '\(image.path)'; the previous state is snapshot 'broken' with ID 2.\n")
        #expect(try image.content(of: .snapshot(.name("broken"))) == current)
        #expect(try image.content() == image.content(of: .snapshot(.name("first"))))
    }

    @Test("The current state is kept under the Unix time without a name")
    func saveUnnamed() throws {
        let image = try TestImage()
        let current = try image.content()
        try image.check("apply", "first", "--save-current")
        let saved = try #require(try image.snapshots.last)
        #expect(saved.name == "\(saved.date.seconds)")
        #expect(try image.content(of: .snapshot(.id("2"))) == current)
    }

    @Test("JSON says what was applied and what was saved")
    func json() throws {
        let image = try TestImage()
        let plain = try image.json("apply", "first")
        #expect(Set(plain.keys) == ["image", "applied", "saved"])
        #expect((plain["applied"] as? [String: Any])?["id"] as? String == "1")
        #expect(plain["saved"] as? [String: Any] == nil)
        let saving = try image.json("apply", "first", "--save-current", "kept")
        #expect((saving["saved"] as? [String: Any])?["name"] as? String == "kept")
    }

    @Test("Bitmaps are given up only by force")
    func bitmaps() throws {
        let image = try TestImage("v3-512-bitmaps")
        try image.expectRefusal(["apply", "first"], status: 6, saying: "holds bitmaps")
        try image.check("apply", "first", "--force")
    }
}
