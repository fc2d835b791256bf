// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import TestTools
import Testing

/// Which snapshot a word means, for every verb that takes one.
@Suite struct SelectorTests {
    static let verbs = [["apply"], ["apply", "--save-current=x"], ["delete"], ["delete", "-n"], ["rename"]]

    private func words(_ verb: [String], _ selector: String) -> [String] {
        [verb[0], selector] + (verb[0] == "rename" ? ["renamed"] : []) + verb.dropFirst()
    }

    /// An image with the snapshots first (ID 1), 1 (ID 2) and 3 (ID 3).
    private func image() throws -> TestImage {
        let image = try TestImage()
        try image.add("1")
        try image.add("3")
        return image
    }

    @Test(
        "IDs and names select, and id: or name: says which",
        arguments: [
            ("first", "first"), ("id:1", "first"), ("name:1", "1"), ("2", "1"), ("id:2", "1"), ("3", "3"),
            ("name:3", "3"), ("id:3", "3"),
        ])
    func found(_ selector: String, _ name: String) throws {
        let image = try image()
        let before = try image.names
        try image.check("rename", selector, "renamed")
        #expect(try image.names == before.map { $0 == name ? "renamed" : $0 })
        #expect(try image.json("delete", "renamed")["deleted"] as? [Any] != nil)
        #expect(try image.names == before.filter { $0 != name })
    }

    @Test("A name that is another's ID is ambiguous, and both are listed", arguments: verbs)
    func ambiguous(_ verb: [String]) throws {
        try image().expectRefusal(
            words(verb, "1"), status: 4, saying: "'1' could be", "id:1 (name 'first')", "id:2 (name '1')",
            "id: or name:")
    }

    @Test("A name that two snapshots have is ambiguous, and their IDs tell them apart", arguments: verbs)
    func duplicates(_ verb: [String]) throws {
        let image = try TestImage()
        try image.add("third")
        try image.patch { try $0.replace("third", with: "first".utf8, from: $0.snapshotTable) }
        for selector in ["first", "name:first"] {
            try image.expectRefusal(
                words(verb, selector), status: 4, saying: "id:1 (name 'first')", "id:2 (name 'first')")
        }
        let result = try image.run(words(verb, "id:2"))
        #expect(result.status == 0 && result.errors.isEmpty)
    }

    @Test(
        "Duplicates made by qemu-img are ambiguous too",
        .enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-utils"))
    func qemuDuplicates() throws {
        let image = try TestImage()
        for _ in 0..<2 { try Tool.check("qemu-img", ["snapshot", "-c", "twin", image.path]) }
        try image.expectRefusal(["apply", "twin"], status: 4, saying: "id:2 (name 'twin')", "id:3 (name 'twin')")
        try image.check("delete", "--all")
        try Tool.check("qemu-img", ["check", image.path])
    }

    @Test("A missing snapshot is named", arguments: verbs)
    func missing(_ verb: [String]) throws {
        let image = try image()
        for (selector, shown) in [
            ("nosuch", "nosuch"), ("id:first", "first"), ("name:2", "2"), ("FIRST", "FIRST"), ("a\u{1B}b", "a\\u{1b}b"),
            ("", ""), ("id:", ""),
        ] {
            try image.expectRefusal(words(verb, selector), status: 4, saying: "no snapshot '\(shown)'")
        }
    }

    @Test("Renaming says the old and the new name")
    func rename() throws {
        let image = try TestImage()
        let output = try image.check("rename", "first", "other")
        #expect(output == "Renamed snapshot 'first' with ID 1 to 'other' in '\(image.path)'.\n")
        let object = try image.json("rename", "other", "third")
        #expect(Set(object.keys) == ["image", "renamed", "old-name"])
        #expect(object["old-name"] as? String == "other")
        #expect((object["renamed"] as? [String: Any])?["name"] as? String == "third")
        try image.check("rename", "third", "third")
        #expect(try image.names == ["third"])
    }
}
