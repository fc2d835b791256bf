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
                active state. A manifest has the hashes of the image file, of every state's disk and of every VM \
                state, in lines for sha256sum -c, with dates, sizes and clocks in comments.

                Exit status of --verify: 0 everything is the same; 1 a state isn't; 12 every state is, but the image \
                file isn't.
                """)

        @OptionGroup var reading: DiskReadingOptions

        @Argument(help: "The snapshot's ID or name.")
        var snapshot: String?

        @Flag(help: "Hash the active state and every snapshot.")
        var all = false

        @Flag(help: "Print a manifest of the image file and of every state.")
        var manifest = false

        @Option(
            help: ArgumentHelp("Compare the image file and every state with a manifest.", valueName: "manifest"),
            completion: .file())
        var verify: String?

        @Flag(help: "With --manifest or --verify: leave the image file out, and take only its states.")
        var statesOnly = false

        func validate() throws {
            let ways = [snapshot != nil, all || manifest, verify != nil].filter { $0 }.count
            guard ways <= 1 else { throw ValidationError("Name a snapshot, or use --all, --manifest or --verify.") }
            guard !statesOnly || manifest || verify != nil else {
                throw ValidationError("--states-only needs --manifest or --verify.")
            }
        }

        func run() throws {
            let expected = try verify.map { path throws(Failure) in try Manifest(readingFile: path) }
            let isWhole = manifest || expected != nil
            let container = !statesOnly && (manifest || expected?.hasContainer == true) ? try reading.openFile() : nil
            // So that the library that hashes has read its configuration before the sandbox.
            _ = SHA256().finish()
            let reader = try reading.openReader()
            // The active state is none of the snapshots.
            var snapshots: [Snapshot?] = []
            var views: [DiskView] = []
            if let snapshot {
                let index = try reader.image.index(of: SnapshotSelector(parsing: snapshot))
                snapshots.append(reader.image.snapshots[index])
                views.append(try reader.view(ofSnapshotAt: index))
            } else {
                snapshots.append(nil)
                views.append(try reader.view())
                if all || isWhole {
                    snapshots += reader.image.snapshots
                    for index in 0..<(snapshots.count - 1) { views.append(try reader.view(ofSnapshotAt: index)) }
                }
            }
            let isOldForm = expected?.isOldForm == true
            let (disks, vmStates, file) = try reading.perform("no hash was printed.") { progress in
                (
                    try StateHashes.disks(views, progress),
                    isWhole && !isOldForm ? try StateHashes.vmStates(views) : [],
                    try container.map { container throws(QCOW2Error) in
                        Manifest.Entry(
                            container: try StateHashes.file(
                                container.view, byteCount: container.byteCount, progress),
                            byteCount: container.byteCount)
                    }
                )
            }
            func entry(_ index: Int) -> Manifest.Entry {
                Manifest.Entry(
                    snapshots[index], virtualSize: views[index].virtualSize, content: disks[index],
                    vmState: vmStates.isEmpty ? nil : vmStates[index])
            }
            if let expected {
                let found = (file.map { [$0] } ?? []) + views.indices.map(entry)
                return try report(ManifestComparison(expected, with: found, statesOnly: statesOnly))
            }
            var output = HashOutput(image: reading.image, form: reading.json ? .json : manifest ? .manifest : .plain)
            if let file { try output.add(file, nil) }
            for index in views.indices { try output.add(entry(index), snapshots[index]) }
            try output.finish()
        }

        /// Says of the image file and of each state whether it is what the manifest says.
        private func report(_ comparison: ManifestComparison) throws {
            if reading.json {
                let rows = comparison.rows.filter { !$0.isContainer }.map(\.json)
                let container = comparison.rows.first { $0.isContainer }
                let object = JSON.object([
                    ("image", .string(reading.image)), ("container", container.map(\.json) ?? .null),
                    ("states", .array(rows)), ("not-compared", .array(comparison.uncovered.map { .string($0) })),
                ])
                try Console.write(object.text() + "\n")
            } else {
                try Console.write(comparison.rows.map { $0.text + "\n" }.joined() + comparison.limits + "\n")
            }
            let bad = comparison.differentCount
            if bad == 0, comparison.hasOtherContainer {
                let more = comparison.newCount == 0 ? "" : ", besides \(comparison.newCount) new"
                throw Failure(
                    "'\(reading.image)': every state is what the manifest says\(more); the image file itself is not.",
                    status: 12)
            }
            guard bad + comparison.newCount == 0 else {
                throw Failure(
                    "'\(reading.image)': \(bad + comparison.newCount) of \(comparison.stateCount) states are not what "
                        + "the manifest says.")
            }
        }
    }
}
