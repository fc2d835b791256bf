// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import TestTools
import Testing

@testable import qsnap

@Suite struct HelpTests {
    @Test("Help names every command and every exit status", arguments: [["--help"], ["-h"], ["help"], []])
    func help(_ arguments: [String]) throws {
        let result = try Command.run(arguments)
        #expect(result.status == 0 && result.errors.isEmpty)
        // Lines are broken anywhere between words.
        let text = result.output.split { $0.isWhitespace }.joined(separator: " ")
        for words in [
            "Snapshots inside qcow2 disk images, without QEMU.", "SNAPSHOT is a snapshot's ID or name", "id:TEXT",
            "Exit status: 0 done; 1 failed; 2 corruption found; 3 only leaks found; 4 no such or ambiguous snapshot; "
                + "5 image in use; 6 unsupported image or feature; 7 not a qcow2 image; 64 usage.",
            "list List the snapshots", "create Create a snapshot", "apply Make the disk", "delete Delete snapshots",
            "rename Give a snapshot", "inspect Show what an image is", "usage Say how much", "diff Say which ranges",
            "export Write one state", "map Show where", "hash Print the SHA-256",
        ] {
            #expect(text.contains(words))
        }
    }

    @Test(
        "Help of a command shows what the README promises",
        arguments: [
            ("list", ["<images> ...", "--json", "-U, --force-share", "-v, --verbose", "--usage"]),
            (
                "create",
                ["<image>", "[<name>]", "--json", "--discard/--no-discard", "--no-lock", "(default: the Unix time)"]
            ),
            (
                "apply",
                [
                    "<snapshot>", "--save-current [<name>]", "(default as flag: the Unix time)", "--force ",
                    "--discard/--no-discard", "--json",
                ]
            ),
            (
                "delete",
                ["[<snapshots> ...]", "--all", "--keep-last <n>", "--older-than <age>", "-n, --dry-run", "--json"]
            ),
            (
                "rename",
                [
                    "<snapshot>", "<new-name>", "--json", "-v, --verbose", "--discard/--no-discard", "--memory <size>",
                ]
            ),
            (
                "export",
                [
                    "<image> [<snapshot>] <output>", "--format <format>", "--compress [<method>]", "--vm-state <file>",
                    "--force ", "--sync/--no-sync", "--no-lock", "--allow-backing", "--json", "-U, --force-share",
                ]
            ),
            ("map", ["<image>", "[<snapshot>]", "--allow-backing", "--json", "-U, --force-share"]),
            ("hash", ["<image>", "[<snapshot>]", "--all", "--manifest", "--verify <manifest>", "--allow-backing"]),
            ("inspect", ["<image>", "--dump", "--json", "-U, --force-share", "--search <mib>", "(default: 1024)"]),
            (
                "diff",
                ["<image> <from> [<to>]", "--full", "--exact", "--export-rbd <file>", "--allow-backing", "--json"]
            ),
            ("usage", ["<image>", "--json", "-U, --force-share", "--deleting <snapshot>"]),
        ])
    func commands(_ name: String, _ words: [String]) throws {
        let help = try Command.run(["help", name])
        #expect(help.status == 0 && help.errors.isEmpty)
        let text = help.output.split { $0.isWhitespace }.joined(separator: " ") + " "
        for word in words { #expect(text.contains(word), "\(help.output)") }
        #expect(try Command.run([name, "--help"]).output == help.output)
    }

    @Test("The version is the library's")
    func version() throws {
        #expect(try Command.run(["--version"]).output == QSnap.configuration.version + "\n")
    }
}
