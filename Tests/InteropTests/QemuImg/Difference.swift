// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation

/// A way in which we differ from qemu-img 7.2 on purpose; the README's table tells users.
struct Difference: Sendable {
    let name: String
    let reason: String
    /// What the real qemu-img's image is good for afterwards.
    let aftereffect: Aftereffect
    let applies: @Sendable (_ line: Invocation, _ theirs: Outcome, _ ours: Outcome) -> Bool

    init(
        _ name: String, _ reason: String, leaves aftereffect: Aftereffect = .good,
        _ applies: @escaping @Sendable (Invocation, Outcome, Outcome) -> Bool
    ) {
        self.name = name
        self.reason = reason
        self.aftereffect = aftereffect
        self.applies = applies
    }

    static let all: [Difference] = [
        Difference("help and version", "The texts are our own, and don't claim to be QEMU's.") { line, theirs, ours in
            theirs.status == 0 && ours.status == 0 && theirs.outputText.hasPrefix("qemu-img version")
                && ours.outputText.hasPrefix("qemu-img version 7.2")
        },
        Difference("no key needed", "Snapshots share clusters and never look into them.") { line, theirs, ours in
            theirs.errorText.contains("Parameter 'encrypt.key-secret' is required for cipher")
                || theirs.errorText.contains("No secret with id")
        },
        Difference("no backing file needed", "Snapshots work on the image alone.") { line, theirs, ours in
            ["snapshot", "check"].contains(line.command) && theirs.errorText.contains("Could not open backing file")
        },
        Difference(
            "no data file needed", "Whether the external data file can be opened makes no difference to the answer."
        ) { line, theirs, ours in
            line.command == "snapshot" && theirs.errorText.contains("d.raw': No such file or directory")
        },
        Difference(
            "commands that qsnap doesn't have", "They are unknown commands, and said to be."
        ) { line, theirs, ours in
            ["amend", "bench", "bitmap", "commit", "rebase"].contains(line.command) && ours.status == 1
                && ours.errorText.hasPrefix("qemu-img: Command not found: \(line.command)\n")
        },
        Difference(
            "other formats and protocols", "They are refused by name; qsnap reads qcow2 and raw files."
        ) { line, theirs, ours in
            ours.status == 1 && ours.errorText.contains("isn't supported by qsnap")
                || ours.errorText.contains("Unknown protocol '") && ours.status == 1 && !theirs.errorText.isEmpty
        },
        Difference(
            "damaged images", "An image whose metadata contradicts itself is refused, where qemu-img goes on.",
            leaves: .diverged
        ) { line, theirs, ours in
            ours.status == 1 && ours.errorText.contains("(at offset ")
        },
        Difference(
            "apply at the refcount limit", "What fits in the end is done; qemu-img adds before it subtracts.",
            leaves: .diverged
        ) { line, theirs, ours in
            theirs.errorText.hasPrefix("qemu-img: Could not apply snapshot")
                && theirs.errorText.hasSuffix("Invalid argument\n") && ours.status == 0
        },
        Difference(
            "findings in our words", "check says what is wrong in the library's words; counts and status are the same."
        ) { line, theirs, ours in
            line.command == "check" && theirs.status == ours.status && theirs.status > 1
                && !theirs.errors.isEmpty && !ours.errors.isEmpty
        },
        Difference(
            "resizing with bitmaps", "Refused, as the bitmaps would no longer match the disk.", leaves: .diverged
        ) { line, theirs, ours in
            line.command == "resize" && ours.errorText.contains("holds bitmaps")
        },
        Difference(
            "files without a format", "map and compare read qcow2 images only, and say so."
        ) { line, theirs, ours in
            ["map", "compare"].contains(line.command) && ours.errorText.contains("a file without a format")
        },
        Difference(
            "external data files", "map and compare don't open them, and say so."
        ) { line, theirs, ours in
            ours.status != 0 && ours.errorText.contains("is in the external data file")
        },
        Difference(
            "encrypted disks", "check and map need no key; data that would have to be read is refused."
        ) { line, theirs, ours in
            ours.errorText.contains("is encrypted with")
        },
        Difference(
            "holes of the file", "map shows what the image says; qemu-img also asks the file system for holes."
        ) { line, theirs, ours in
            guard line.command == "map", theirs.status == 0, ours.status == 0, ours.errors.isEmpty else { return false }
            return theirs.outputText.contains(#""zero": true, "data": true"#)
                || !ours.outputText.contains("start") && theirs.output.count != ours.output.count
        },
        Difference(
            "no progress", "convert -p prints none on standard output."
        ) { line, theirs, ours in
            line.command == "convert" && theirs.status == 0 && ours.status == 0 && ours.output.isEmpty
                && theirs.outputText.contains("/100%)")
        },
        Difference(
            "missing backing files", "map says that one can't be opened, where its data is needed."
        ) { line, theirs, ours in
            line.command == "map" && theirs.status == ours.status
                && [theirs, ours].allSatisfy { $0.errorText.contains("Could not open backing file") }
        },
    ]
}
