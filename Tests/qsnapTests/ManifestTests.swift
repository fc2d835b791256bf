// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// `hash --manifest` and `hash --verify`: everything that a state is, and the image file.
@Suite struct ManifestTests {
    /// An image whose snapshot has a VM state of 512 bytes, and a manifest of it.
    private struct Evidence {
        let image: TestImage
        let manifest: String

        init(_ words: [String] = []) throws {
            image = try TestImage {
                let table = $0.snapshotTable
                let l1 = $0.snapshotL1
                // The VM state's first cluster is that of the disk's: only its hash matters here.
                $0.store(UInt32(2), at: table + 8)
                for index in 0..<8 { $0[l1 + 8 + index] = $0[l1 + index] }
                $0.store(UInt32(512), at: table + 32)
                $0.store(UInt64(512), at: table + 40)
                // No whole number of sectors.
                $0 += [1, 2, 3]
            }
            manifest = image.folder.file("manifest")
            try write(image.check(["hash", "--manifest"] + words))
        }

        func write(_ text: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: manifest)) }

        func verify(_ words: String...) throws -> Tool.Result { try image.run(["hash", "--verify", manifest] + words) }
    }

    @Test(
        "sha256sum takes a manifest, and finds what export writes",
        .enabled(if: Tool.isInstalled("sha256sum"), "needs sha256sum"))
    func sums() throws {
        let evidence = try Evidence()
        let path = evidence.image.path
        try evidence.image.check("export", "\(path).raw")
        try evidence.image.check("export", "first", "\(path).1.raw", "--vm-state", "\(path).1.vmstate")
        let output = try Tool.check("sha256sum", ["-c", "--strict", evidence.manifest])
        #expect(output == ["", ".raw", ".1.raw", ".1.vmstate"].map { "\(path)\($0): OK\n" }.joined())
        let same = try evidence.verify()
        #expect(same.status == 0, "\(same.errors)")
        #expect(
            same.output == """
                image file: same
                active: same
                1 first: same
                Not compared: other files, but for what shows through from them.\n
                """)
    }

    /// One change of a snapshot's entry, by field.
    static let changes: [(name: String, offset: Int)] = [
        ("date", 16), ("date", 20), ("vm-clock-nsec", 24), ("icount", 56),
    ]

    @Test("A change of any field of a state is said", arguments: changes)
    func fields(_ name: String, _ offset: Int) throws {
        let evidence = try Evidence()
        try evidence.image.patch { $0[$0.snapshotTable + offset + 3] ^= 1 }
        let result = try evidence.verify()
        #expect(result.status == 1 && result.errors.contains("1 of 2 states"))
        #expect(result.output.contains("\n1 first: different (\(name))\n"), "\(result.output)")
        #expect(result.output.hasPrefix("image file: different (content)\nactive: same\n"))
        #expect(try evidence.verify("--states-only").status == 1)
    }

    @Test("A change of the VM state is said")
    func vmState() throws {
        let evidence = try Evidence()
        try evidence.image.patch {
            let l1 = $0.snapshotL1
            for index in 8..<16 { $0[l1 + index] = 0 }
        }
        let result = try evidence.verify()
        #expect(result.status == 1 && result.output.contains("\n1 first: different (vm-state)\n"), "\(result.output)")
        let states = try jsonObject(evidence.verify("--json").output)["states"] as? [[String: Any]]
        #expect(states?.last?["differences"] as? [String] == ["vm-state"])
        try evidence.image.patch {
            $0.store(UInt32(0), at: $0.snapshotTable + 32)
            $0.store(UInt64(0), at: $0.snapshotTable + 40)
        }
        #expect(try evidence.verify().output.contains("\n1 first: different (vm-state-size, vm-state)\n"))
    }

    @Test("Where only the image file changed, that is said, and has its own exit status")
    func container() throws {
        let evidence = try Evidence()
        try evidence.image.patch { $0[$0.count - 1] ^= 1 }
        let result = try evidence.verify()
        #expect(result.status == 12 && result.errors.contains("every state is what the manifest says"))
        #expect(result.output.hasPrefix("image file: different (content)\nactive: same\n1 first: same\n"))
        let object = try jsonObject(evidence.verify("--json").output)
        #expect((object["container"] as? [String: Any])?["outcome"] as? String == "different")
        #expect(object["not-compared"] as? [String] == ["other-files"])
        let states = try evidence.verify("--states-only")
        #expect(states.status == 0 && states.output.contains("Not compared: the image file itself"))
        #expect(!states.output.contains("image file:"))

        let other = try TestImage()
        let manifest = other.folder.file("manifest")
        try Data(other.check("hash", "--manifest").utf8).write(to: URL(fileURLWithPath: manifest))
        try other.check("create", "second")
        let more = try other.run(["hash", "--verify", manifest])
        #expect(more.status == 12 && more.output.contains("second: not in the manifest"))
        // Without the file's hash, a state more is what differs.
        #expect(try other.run(["hash", "--verify", manifest, "--states-only"]).status == 1)
    }

    @Test("A manifest without the image file's hash says so when it verifies")
    func statesOnly() throws {
        let evidence = try Evidence(["--states-only"])
        try evidence.image.patch { $0[$0.count - 1] ^= 1 }
        let result = try evidence.verify()
        #expect(result.status == 0 && result.output.contains("Not compared: the image file itself"))
        for words in [["hash", "--states-only"], ["hash", "--all", "--states-only"]] {
            #expect(try evidence.image.run(words).status == 64)
        }
    }

    @Test("A manifest of the older form verifies, and what it lacks is said")
    func oldForm() throws {
        let evidence = try Evidence()
        let sums = try evidence.image.check("hash", "--all").split(separator: "\n").map { $0.prefix(64) }
        try evidence.write("\(sums[0]) 12288 active\n\(sums[1]) 12288 snapshot:1:first\n")
        let same = try evidence.verify()
        #expect(same.status == 0 && same.output.hasPrefix("active: same\n1 first: same\n"), "\(same.errors)")
        #expect(same.output.contains("image file itself") && same.output.contains("VM states, dates, clocks"))
        try evidence.write("\(sums[1]) 12288 active\n\(sums[1]) 12289 snapshot:1:first\n")
        let result = try evidence.verify()
        #expect(result.status == 1 && result.errors.contains("2 of 2 states"))
        #expect(result.output.hasPrefix("active: different (content)\n1 first: different (size)\n"))
    }

    @Test("A manifest says what changed, what is missing and what is new")
    func states() throws {
        let image = try TestImage()
        try image.check("create", "a name: 100% ünïcode")
        let manifest = image.folder.file("manifest")
        try Data(image.check("hash", "--manifest").utf8).write(to: URL(fileURLWithPath: manifest))
        let same = try image.check("hash", "--verify", manifest)
        #expect(same.hasPrefix("image file: same\nactive: same\n1 first: same\n2 a name: 100% ünïcode: same\n"))
        try image.check("delete", "id:2")
        try image.check("apply", "first")
        try image.check("create", "third")
        let result = try image.run(["hash", "--verify", manifest])
        #expect(result.status == 1 && result.errors.contains("3 of 4 states are not what the manifest says"))
        let lines = result.output.split(separator: "\n")
        try #require(lines.count == 6)
        #expect(lines[0].hasPrefix("image file: different (content"))
        #expect(lines[1] == "active: different (content)" && lines[2] == "1 first: same")
        #expect(lines[3].hasSuffix(": missing") && lines[4].hasSuffix("third: not in the manifest"))
        #expect(try image.run(["hash", "first", "--all"]).status == 64)
    }

    @Test("Snapshots that share an ID have files of their own, and paths are escaped as sha256sum does it")
    func names() throws {
        let image = try TestImage()
        try image.add("second")
        try image.patch {
            let table = $0.snapshotTable
            try $0.replace("2second", with: Array("1second".utf8), from: table)
        }
        let path = image.folder.file("back\\slash\n.qcow2")
        try Data(image.bytes).write(to: URL(fileURLWithPath: path))
        let text = try Command.run(["hash", path, "--manifest"]).output
        let escaped = image.folder.file("back\\\\slash\\n.qcow2")
        for name in ["", ".raw", ".1.raw", ".1%n2.raw"] { #expect(text.contains("  \(escaped)\(name)\n"), "\(text)") }
        let manifest = image.folder.file("manifest")
        try Data(text.utf8).write(to: URL(fileURLWithPath: manifest))
        #expect(try Command.run(["hash", path, "--verify", manifest]).status == 0)
        if Tool.isInstalled("sha256sum") {
            let sums = try Tool.run("sha256sum", ["-c", "--strict", "--ignore-missing", manifest])
            #expect(sums.status == 0 && sums.output.contains(": OK"), "\(sums.errors)")
        }
    }

    @Test(
        "What is no manifest is refused",
        arguments: ["", "nonsense\n", "# qsnap-manifest 3\n", "# qsnap-manifest 2\nx\n"])
    func nonsense(_ text: String) throws {
        let evidence = try Evidence()
        try evidence.write(text)
        #expect(try evidence.verify().status == 1)
        #expect(try evidence.image.run(["hash", "--verify", evidence.image.folder.file("nosuch")]).status == 1)
    }
}

extension [UInt8] {
    /// Where the first snapshot's L1 table is.
    fileprivate var snapshotL1: Int { self[snapshotTable..<(snapshotTable + 8)].reduce(0) { $0 << 8 | Int($1) } }
}
