// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import TestTools
import Testing

@Suite struct CreateTests {
    @Test("A named snapshot is created, and said to be")
    func named() throws {
        let image = try TestImage()
        #expect(try image.check("create", "new") == "Created snapshot 'new' with ID 2 in '\(image.path)'.\n")
        #expect(try image.names == ["first", "new"])
        #expect(try image.content(of: .snapshot(.name("new"))) == image.content())
    }

    @Test("The least memory and a lot of it do the same", arguments: ["1M", "1024K", "1G"])
    func memory(_ size: String) throws {
        let image = try TestImage()
        try image.check("create", "new", "--memory", size)
        #expect(try image.names == ["first", "new"])
        #expect(try image.content(of: .snapshot(.name("new"))) == image.content())
    }

    @Test("Without a name it is the Unix time, numbered where that is taken")
    func unnamed() throws {
        let image = try TestImage()
        let earliest = SnapshotDate.now.seconds
        for _ in 0..<3 { try image.check("create") }
        let snapshots = try image.snapshots.dropFirst()
        #expect(Set(snapshots.map(\.name)).count == 3)
        for snapshot in snapshots {
            #expect(snapshot.name.split(separator: "-")[0] == "\(snapshot.date.seconds)")
            #expect((earliest...SnapshotDate.now.seconds).contains(snapshot.date.seconds))
        }
    }

    @Test("JSON says what was created")
    func json() throws {
        let image = try TestImage()
        let object = try image.json("create", "new")
        #expect(Set(object.keys) == ["image", "created"])
        #expect(object["image"] as? String == image.path)
        let created = try #require(object["created"] as? [String: Any])
        #expect(created["id"] as? String == "2" && created["name"] as? String == "new")
    }

    static let longest = String(repeating: "x", count: 255)

    @Test(
        "Names of 1 to 255 bytes without control characters are fine",
        arguments: ["x", longest, String(repeating: "é", count: 127), "日本 🐚", "a/b\\c \"d\" 'e'", "$(id)", "id:7", "1"])
    func goodNames(_ name: String) throws {
        let image = try TestImage()
        try image.check("create", name)
        #expect(try image.names == ["first", name])
        try image.check("delete", "name:\(name)")
        #expect(try image.names == ["first"])
    }

    @Test(
        "Other names are refused in one sentence",
        arguments: [
            ("", 64, "can't be empty"), (longest + "x", 64, "longer than 255 bytes; this one has 256"),
            (String(repeating: "é", count: 128), 64, "256"), ("a\nb", 64, "control characters: 'a\\u{a}b'"),
            ("\u{1B}[2J", 64, "control characters"), ("a\u{7F}", 64, "control characters"),
            ("a\u{85}b", 64, "control characters"), ("first", 1, "already a snapshot named 'first'"),
        ] as [(String, Int32, String)])
    func badNames(_ name: String, _ status: Int32, _ words: String) throws {
        let image = try TestImage()
        try image.add("second")
        try image.expectRefusal(["create", name], status: status, saying: words)
        try image.expectRefusal(["apply", "second", "--save-current", name], status: status, saying: words)
        try image.expectRefusal(["rename", "second", name], status: status, saying: words)
    }

    @Test("A name may begin with a hyphen, behind the end of the options", arguments: ["-x", "--all", "--", "-"])
    func hyphen(_ name: String) throws {
        let image = try TestImage()
        try image.check("create", "--", name)
        #expect(try image.names == ["first", name])
        try image.check("delete", "--", name)
        #expect(try image.names == ["first"])
    }

    @Test("Arguments that aren't UTF-8 are refused, and not replaced", .enabled(if: Tool.isInstalled("bash")))
    func invalidUTF8() throws {
        let image = try TestImage()
        let before = try image.bytes
        let result = try image.run(["create"], via: #"exec "$@" $'caf\xe9'"#)
        expectOneSentence(result, status: 64, naming: "caf\u{FFFD}", ["isn't valid UTF-8"])
        #expect(try image.bytes == before)
    }

    @Test("More references than a refcount counts are refused")
    func overflow() throws {
        let image = try TestImage("v3-512-refcount1")
        try image.expectRefusal(["create", "new"], status: 6, saying: "1-bit refcounts")
    }
}
