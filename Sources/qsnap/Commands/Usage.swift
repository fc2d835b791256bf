// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Usage: ImageReadingCommand {
        static let configuration = CommandConfiguration(
            commandName: "usage",
            abstract: "Say how much each state of the disk holds, and what deleting snapshots would free.",
            discussion: """
                ONLY HERE is what no other state holds, and so what deleting that snapshot alone frees; SHARED is what \
                others hold, too. What two snapshots share goes only with both: --deleting says what a set frees. \
                Opens the image for reading only; needs neither backing files nor encryption keys.
                """)

        @OptionGroup var options: ReadingOptions

        @Option(
            parsing: .upToNextOption,
            help: ArgumentHelp("Say exactly what deleting these snapshots at once would free.", valueName: "snapshot"))
        var deleting: [String] = []

        func run() throws {
            let image = try options.open()
            let progress = ScanProgress()
            defer { progress.clear() }
            let snapshots = image.snapshots
            var doomed: Set<Int> = []
            for text in deleting { doomed.insert(try image.index(of: SnapshotSelector(parsing: text))) }
            let usage = try image.usage(options: progress.options)
            let freed =
                doomed.isEmpty
                ? nil : try image.byteCountFreed(byDeletingSnapshotsAt: doomed, options: progress.options)
            let chosen = doomed.sorted().map { snapshots[$0] }
            progress.clear()
            guard options.json else {
                return try Console.write(text(usage, snapshots) + (freed.map { sentence($0, chosen) } ?? ""))
            }
            var members: [(String, JSON)] = [
                ("image", .string(options.image)),
                ("active", .object(usage.active.jsonMembers)),
                ("snapshots", .array(zip(snapshots, usage.snapshots).map { $0.json(with: $1.jsonMembers) })),
                ("file", usage.file.json),
            ]
            if let freed {
                members.append(
                    ("deleting", .object([("snapshots", .array(chosen.map(\.json))), ("freed-bytes", .signed(freed))])))
            }
            try Console.write(JSON.object(members).text() + "\n")
        }

        private func text(_ usage: ImageUsage, _ snapshots: [Snapshot]) -> String {
            let rows = [["ID", "NAME"] + StateUsage.columnTitles, ["-", "(active)"] + usage.active.columns]
            let snapshotRows = zip(snapshots, usage.snapshots).map { snapshot, usage in
                [snapshot.shortID, snapshot.shortName] + usage.columns
            }
            return table(rows + snapshotRows) + "\n" + usage.file.text
        }

        private func sentence(_ freed: Int64, _ chosen: [Snapshot]) -> String {
            let list = chosen.map { "'\($0.shortName)' (ID \($0.shortID))" }.joined(separator: ", ")
            let amount = freed < 0 ? "-\(size(freed.magnitude))" : size(freed.magnitude)
            return "\nDeleting \(list) would free \(amount) (\(freed) bytes).\n"
        }
    }
}
