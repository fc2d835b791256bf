// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Hash: ReadCommand {
        static let configuration = CommandConfiguration(
            commandName: "hash",
            abstract: "Print the SHA-256 of the disk's content, in one of its states or in all of them.",
            discussion: """
                The hash is that of the raw disk at the state's own size, as export writes it. Without SNAPSHOT, the \
                active state. A manifest has one line for each state: the hash, the size, and the state.
                """)

        @OptionGroup var reading: DiskReadingOptions

        @Argument(help: "The snapshot's ID or name.")
        var snapshot: String?

        @Flag(help: "Hash the active state and every snapshot.")
        var all = false

        @Flag(help: "Print a manifest of every state.")
        var manifest = false

        @Option(help: ArgumentHelp("Compare every state with a manifest.", valueName: "manifest"), completion: .file())
        var verify: String?

        func validate() throws {
            let ways = [snapshot != nil, all || manifest, verify != nil].filter { $0 }.count
            guard ways <= 1 else { throw ValidationError("Name a snapshot, or use --all, --manifest or --verify.") }
        }

        func run() throws {
            let expected = try verify.map(Manifest.init(readingFile:))
            let reader = try reading.openReader()
            var states: [ManifestState] = []
            var views: [DiskView] = []
            if snapshot == nil {
                states.append(.active)
                views.append(try reader.view())
            }
            if let snapshot {
                let index = try reader.image.index(of: SnapshotSelector(parsing: snapshot))
                states.append(ManifestState(reader.image.snapshots[index]))
                views.append(try reader.view(ofSnapshotAt: index))
            } else if all || manifest || expected != nil {
                for (index, snapshot) in reader.image.snapshots.enumerated() {
                    states.append(ManifestState(snapshot))
                    views.append(try reader.view(ofSnapshotAt: index))
                }
            }
            let hashes = try reading.perform("no hash was printed.") { progress in
                var hasher = StateHasher(count: views.count)
                try DiskView.readAll(views, progress: progress) { (range, indices, bytes) throws(QCOW2Error) in
                    try hasher.update(indices, bytes, range)
                }
                return hasher.finish()
            }
            let lines = states.indices.map {
                Manifest.Line(hash: hashes[$0], byteCount: views[$0].virtualSize, state: states[$0])
            }
            if let expected { return try compare(lines, with: expected) }
            let text = manifest && !reading.json ? lines.map { $0.text + "\n" }.joined() : plain(lines)
            try Console.write(text)
        }

        private func plain(_ lines: [Manifest.Line]) -> String {
            guard reading.json else {
                return lines.map { "\($0.hash)  \(printable($0.state.label))\n" }.joined()
            }
            let object = JSON.object([
                ("image", .string(reading.image)), ("states", .array(lines.map(\.json))),
            ])
            return object.text() + "\n"
        }

        /// Says of each state whether it is what the manifest says; fails unless all are, and none is missing or new.
        private func compare(_ lines: [Manifest.Line], with expected: Manifest) throws {
            let comparison = expected.compared(with: lines)
            if reading.json {
                let members = comparison.map { line, outcome in
                    JSON.object([("state", .string(line.state.label)), ("outcome", .string(outcome.rawValue))])
                }
                let object = JSON.object([("image", .string(reading.image)), ("states", .array(members))])
                try Console.write(object.text() + "\n")
            } else {
                let rows = comparison.map { "\($0.line.state.label): \($0.outcome.rawValue)" }
                try Console.write(rows.map { printable($0) + "\n" }.joined())
            }
            let bad = comparison.filter { $0.outcome != .same }.count
            guard bad == 0 else {
                throw Failure(
                    "'\(reading.image)': \(bad) of \(comparison.count) states are not what the manifest says.")
            }
        }
    }
}
