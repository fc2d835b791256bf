// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import TestTools
import Testing

/// `qsnap qemu-img`: what later versions print, where the machine has only 7.2 to compare with.
///
/// The texts are those that the reference quotes from 11.0.
@Suite struct QemuImgVersionTests {
    /// Runs on an image with the snapshots `first` and `one`.
    private func run(_ words: [String], version: String?) throws -> Tool.Result {
        let image = try TestImage()
        let words = words.map { $0 == "IMAGE" ? image.path : $0 }
        var environment = ["TZ": "UTC"]
        if let version { environment["QSNAP_QEMU_IMG_VERSION"] = version }
        return try withExtendedLifetime(image) {
            try Command.run(["qemu-img"] + words, environment: environment)
        }
    }

    @Test("The table has the layout of the version", arguments: [nil, "", "7.2", "8.2", "9.0", "10.1", "11.0"])
    func table(_ version: String?) throws {
        let result = try run(["snapshot", "-l", "IMAGE"], version: version)
        let lines = result.output.split(separator: "\n", omittingEmptySubsequences: false)
        let isWide = ["9.0", "10.1", "11.0"].contains(version)
        #expect(result.status == 0 && result.errors.isEmpty && lines.count == 4)
        #expect(lines[0] == "Snapshot list:")
        #expect(
            lines[1]
                == (isWide
                    ? "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT"
                    : "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT"))
        #expect(
            lines[2].hasPrefix(isWide ? "1       first                 0 B " : "1         first                 0 B "))
        #expect(lines[2].hasSuffix(isWide ? "  0000:00:00.000          0" : " 00:00:00.000          0"))
        #expect(lines[2].utf8.count == lines[1].utf8.count)
    }

    static let complaints: [([String], String)] = [
        (["-c"], "qemu-img snapshot: option requires an argument -- 'c'"),
        (["--create"], "qemu-img snapshot: option '--create' requires an argument"),
        (["-Z"], "qemu-img snapshot: invalid option -- 'Z'"),
        (["--foo"], "qemu-img snapshot: unrecognized option '--foo'"),
        (["--fo"], "qemu-img snapshot: option '--fo' is ambiguous; possibilities: '--format' '--force-share'"),
        (["--list=1", "IMAGE"], "qemu-img snapshot: option '--list' doesn't allow an argument"),
        (["-l", "--create", "x", "IMAGE"], "qemu-img: Cannot mix '-l', '-a', '-c', '-d'"),
        ([], "qemu-img: Expecting one image file name"),
    ]

    @Test("10.1 complains in the C library's words", arguments: complaints)
    func usage(_ words: [String], _ complaint: String) throws {
        let result = try run(["snapshot"] + words, version: "10.1")
        #expect(result.status == 1 && result.output.isEmpty)
        #expect(result.errors == "\(complaint)\nTry 'qemu-img snapshot --help' for more information\n")
    }

    @Test("10.1 lists without an action, and takes long options and a format")
    func newOptions() throws {
        let list = try run(["snapshot", "-l", "IMAGE"], version: "10.1").output
        for words in [
            ["IMAGE"], ["--list", "IMAGE"], ["--li", "-f", "qcow2", "IMAGE"], ["--format=qcow2", "-U", "IMAGE"],
        ] {
            let result = try run(["snapshot"] + words, version: "10.1")
            #expect(result.output == list && result.status == 0, "\(result.errors)")
        }
        let raw = try run(["snapshot", "-f", "raw", "-l", "IMAGE"], version: "10.1")
        #expect(raw.output.isEmpty && raw.status == 0)
        let none = try run(["snapshot", "--create=new", "--quiet", "IMAGE"], version: "10.1")
        #expect(none.output.isEmpty && none.errors.isEmpty && none.status == 0)
        let old = try run(["snapshot", "--list", "IMAGE"], version: nil)
        #expect(old.errors.hasPrefix("qemu-img: unrecognized option '--list'\n") && old.status == 1)
    }

    @Test("8.0 shows the file's node, 8.2 drops error numbers")
    func laterWords() throws {
        let info = try run(["info", "IMAGE"], version: "8.0").output
        #expect(info.contains("\nChild node '/file':\n    filename: ") && info.contains("\n    protocol type: file\n"))
        let json = try run(["info", "--output=json", "IMAGE"], version: "8.0").output
        #expect(
            json.hasPrefix(
                "{\n    \"children\": [\n        {\n            \"name\": \"file\",\n            \"info\": {\n"))
        let node = try #require(try jsonObject(json)["children"] as? [[String: Any]])
        #expect(node.first?["name"] as? String == "file")
        #expect(try run(["info", "IMAGE"], version: "7.2").output.contains("Child") == false)
    }

    @Test("A version that is none is refused", arguments: ["7", "x", "7.x", "-1.0", "7,2"])
    func badVersion(_ version: String) throws {
        let result = try run(["snapshot", "-l", "IMAGE"], version: version)
        #expect(result.status == 1 && result.errors.contains("QSNAP_QEMU_IMG_VERSION must be a version"))
    }
}
