// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Delete: ImageCommand {
        static let configuration = CommandConfiguration(
            commandName: "delete",
            abstract: "Delete snapshots, all in one step.",
            discussion: "An interrupted command leaves all of the named snapshots or none.")

        @OptionGroup var options: ImageOptions

        @Argument(help: "The snapshots' IDs or names.")
        var snapshots: [String] = []

        @Flag(help: "Delete every snapshot.")
        var all = false

        @Option(help: ArgumentHelp("Delete all but the last N snapshots created.", valueName: "n"))
        var keepLast: Int?

        @Option(
            help: ArgumentHelp("Delete snapshots older than an AGE such as 90s, 15m, 12h, 7d or 4w.", valueName: "age"),
            transform: Age.init(parsing:))
        var olderThan: Age?

        @Flag(name: [.long, .customShort("n")], help: "Say what would be deleted, and change nothing.")
        var dryRun = false

        func validate() throws {
            let ways = [!snapshots.isEmpty, all, keepLast != nil, olderThan != nil].filter { $0 }.count
            guard ways == 1 else {
                throw ValidationError("Name snapshots, or use one of --all, --keep-last and --older-than.")
            }
            guard (keepLast ?? 0) >= 0 else { throw ValidationError("--keep-last can't be negative.") }
        }

        func run() throws {
            var image = try options.open(for: dryRun ? .reading : .writing)
            let existing = image.snapshots
            let doomed = try chosen(in: image)
            if !dryRun {
                try options.perform { writeOptions in _ = try image.deleteSnapshots(at: doomed, options: writeOptions) }
            }
            let deleted = doomed.map { existing[$0] }
            let list = deleted.map { "'\($0.shortName)' (ID \($0.shortID))" }.joined(separator: ", ")
            let sentence =
                if deleted.isEmpty {
                    "No snapshot to delete in '\(options.image)'."
                } else {
                    "\(dryRun ? "Would delete" : "Deleted") from '\(options.image)': \(list)."
                }
            try options.report(sentence, [("deleted", .array(deleted.map(\.json))), ("dry-run", .bool(dryRun))])
        }

        /// The indices of the snapshots to delete, in table order: snapshots may share an ID or a name.
        private func chosen(in image: borrowing Image<FileStorage>) throws -> [Int] {
            let existing = image.snapshots
            if let keepLast { return Array(existing.indices.dropLast(keepLast)) }
            if let olderThan {
                let limit = Int64(SnapshotDate.now.seconds) - olderThan.seconds
                return existing.indices.filter { Int64(existing[$0].date.seconds) < limit }
            }
            if all { return Array(existing.indices) }
            var indices: Set<Int> = []
            for text in snapshots { indices.insert(try image.index(of: SnapshotSelector(parsing: text))) }
            return indices.sorted()
        }
    }
}

/// A span of time, given as a number with a unit.
struct Age {
    let seconds: Int64

    init(parsing text: String) throws {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800]
        guard let unit = text.last.flatMap({ units[$0] }), let number = Int64(text.dropLast()), number >= 0 else {
            throw ValidationError("'\(text)' is no age; write a number and s, m, h, d or w, such as 7d.")
        }
        let (seconds, overflow) = number.multipliedReportingOverflow(by: unit)
        guard !overflow else { throw ValidationError("'\(text)' is too large.") }
        self.seconds = seconds
    }
}
