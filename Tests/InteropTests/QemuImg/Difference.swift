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
            "findings in our words",
            "What a check or the repair of a dirty image finds is said in the library's words; the rest is the same."
        ) { line, theirs, ours in
            theirs.status == ours.status && theirs.withoutImageEnd == ours.withoutImageEnd
                && theirs.findings.count > 0 && ours.findings.count > 0 && theirs.otherErrors == ours.otherErrors
        },
        Difference(
            "check -r and unknown autoclear bits",
            "qemu-img writes a header without snapshots, and then frees what only they held; here they stay.",
            leaves: .diverged
        ) { line, theirs, ours in
            line.command == "check" && line.repairs && theirs.status == 0 && ours.status == 0
                && line.words.contains { $0.starts(with: "unknownAutoclear".utf8) }
                && theirs.errorText.hasPrefix("Leaked cluster") && ours.errors.isEmpty
        },
        Difference(
            "repaired corruptions",
            "A flag that disagrees with a refcount counts by the refcount before the repair; there by that after it."
        ) { line, theirs, ours in
            line.command == "check" && line.repairs && theirs.status == ours.status
                && theirs.withoutFixed == ours.withoutFixed && theirs.otherErrors == ours.otherErrors
        },
        Difference(
            "repairing leaks beside corruptions", "Nothing is freed while refcounts are too low, and check says so.",
            leaves: .diverged
        ) { line, theirs, ours in
            line.command == "check" && line.repairs && ours.status == 1
                && ours.errorText.contains("Check failed: Some refcounts are too low")
        },
        Difference(
            "resizing with bitmaps", "Refused, as the bitmaps would no longer match the disk.", leaves: .diverged
        ) { line, theirs, ours in
            line.command == "resize" && ours.errorText.contains("holds bitmaps")
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
            // Behind preallocated clusters, and in the last sector of a raw backing file.
            return [#""zero": true, "data": true"#, #""zero": true, "data": false, "offset""#].contains {
                theirs.outputText.contains($0) && !ours.outputText.contains($0)
            }
        },
        Difference(
            "missing backing files", "map says that one can't be opened, where its data is needed."
        ) { line, theirs, ours in
            line.command == "map" && theirs.status == ours.status
                && [theirs, ours].allSatisfy { $0.errorText.contains("Could not open backing file") }
        },
    ]
}

extension Invocation {
    fileprivate var repairs: Bool { words.contains { $0.starts(with: "-r".utf8) || $0.starts(with: "--repair".utf8) } }
}

extension Outcome {
    private var errorLines: [Substring] { errorText.split(separator: "\n") }

    private static func isFinding(_ line: Substring) -> Bool {
        ["ERROR ", "Leaked ", "Repairing "].contains { line.hasPrefix($0) }
    }

    /// Lines about what a check found or repaired.
    fileprivate var findings: [Substring] { errorLines.filter(Self.isFinding) }
    /// All the other lines of standard error.
    fileprivate var otherErrors: [Substring] { errorLines.filter { !Self.isFinding($0) } }

    /// Standard output without where the image ends: repaired here and there, it may end elsewhere.
    fileprivate var withoutImageEnd: String {
        without([#"    "image-end-offset": \d+,\n"#, #"Image end offset: \d+\n"#])
    }

    /// The same without the number of repaired corruptions.
    fileprivate var withoutFixed: String {
        var text = withoutImageEnd
        for pattern in [#"The following [\s\S]*image now\.\.\.\n"#, #"    "corruptions-fixed": \d+,\n"#] {
            text = text.replacingOccurrences(of: pattern, with: "", options: .regularExpression)
        }
        return text
    }

    private func without(_ patterns: [String]) -> String {
        patterns.reduce(outputText) {
            $0.replacingOccurrences(of: $1, with: "", options: .regularExpression)
        }
    }
}
