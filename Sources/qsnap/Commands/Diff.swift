// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Diff: ImageReadingCommand {
        static let configuration = CommandConfiguration(
            commandName: "diff",
            abstract: "Say which ranges of the disk changed between two states.",
            usage: "qsnap diff <image> <from> [<to>] [options]\nqsnap diff <image> --full [<to>] [options]",
            discussion: """
                FROM and TO are snapshots; without TO, the active state. Compares where the states are stored and reads \
                no data, so a range that was rewritten with the same bytes is listed; --exact leaves it out. What both \
                states share costs nothing. Opens the image for reading only.
                """)

        @OptionGroup var options: ReadingOptions

        @Argument(help: ArgumentHelp("The earlier and the later snapshot's ID or name.", valueName: "from> <to"))
        var states: [String] = []

        @Flag(help: "Compare with a disk of zeros instead of FROM: list, or export, all of TO.")
        var full = false

        @Flag(help: "Compare the data where the states are stored differently, and list only sectors that differ.")
        var exact = false

        @Option(
            help: ArgumentHelp(
                "Write the changes in the format of rbd export-diff, for rbd import-diff; - for standard output.",
                valueName: "file"))
        var exportRbd: String?

        @Flag(
            help: """
                Open backing files wherever they are. Without it, only those in the directory of the image that names \
                them are opened, and only when data is read.
                """)
        var allowBacking = false

        @Flag(
            inversion: .prefixedNo,
            help: """
                With --export-rbd: wait until the new file is on stable storage. Without it, a power loss may leave an \
                incomplete one.
                """)
        var sync = true

        private var from: DiskState? { full ? nil : state(states.first) }
        private var to: DiskState { state(full ? states.first : states.dropFirst().first) }

        private func state(_ text: String?) -> DiskState {
            text.map { .snapshot(SnapshotSelector(parsing: $0)) } ?? .active
        }

        func validate() throws {
            guard (full ? 0...1 : 1...2).contains(states.count) else {
                throw ValidationError("Name the state to compare from, and one to compare with at most; or use --full.")
            }
            guard exportRbd != "-" || !options.json else {
                throw ValidationError("The changes and JSON can't both go to standard output.")
            }
        }

        func run() throws {
            let reader = try ImageReader(options.open(), backing: allowBacking ? .anyFile : .sameDirectory)
            let bar = ProgressBar()
            defer { bar.clear() }
            Interruption.catchSignals()
            let progress: @Sendable (Progress) -> Bool = { progress in
                bar.show(progress)
                return Interruption.signal == 0
            }
            do {
                if let exportRbd {
                    try export(reader, to: exportRbd, progress)
                } else {
                    try list(reader, progress)
                }
            } catch let error as QCOW2Error where error.code == .cancelled {
                throw Interruption.failure("there is no new file.") ?? Failure(error, in: options.image)
            }
        }

        private func list(
            _ reader: ImageReader<FileStorage>, _ progress: @escaping @Sendable (Progress) -> Bool
        ) throws {
            var output = DiffOutput(isJSON: options.json, heading: heading)
            var failure: Failure?
            func add(_ extent: ChangedExtent) throws(QCOW2Error) {
                do throws(Failure) {
                    try output.add(extent)
                } catch {
                    failure = error
                    throw QCOW2Error(.inputOutput, error.message)
                }
            }
            let difference: DiskDifference
            do throws(QCOW2Error) {
                if exact {
                    difference = try reader.exactDiff(from: from, to: to, progress: progress, add)
                } else {
                    difference = try reader.image.diff(from: from, to: to, progress: progress, add)
                }
            } catch {
                if let failure { throw failure }
                throw error
            }
            try output.finish(difference, sentence(difference))
        }

        private func export(
            _ reader: ImageReader<FileStorage>, to path: String, _ progress: @escaping @Sendable (Progress) -> Bool
        ) throws {
            guard path != "-" else {
                try reader.exportRBDDiff(from: from, to: to, isExact: exact, progress: progress) {
                    (bytes) throws(QCOW2Error) in
                    try Console.write(bytes, or: 0)
                }
                return
            }
            var exportOptions = ExportOptions()
            exportOptions.flushes = sync
            exportOptions.progress = progress
            let difference = try reader.exportRBDDiff(
                toFile: path, from: from, to: to, isExact: exact, options: exportOptions)
            let done = "Exported the changes to '\(path)': \(sentence(difference))"
            let members = heading + difference.jsonMembers + [("output", JSON.string(path))]
            try Console.write((options.json ? JSON.object(members).text() : printable(done)) + "\n", after: done)
        }

        /// What was compared, with the documented keys.
        private var heading: [(String, JSON)] {
            [
                ("image", .string(options.image)),
                ("from", full ? .null : .string(states[0])),
                ("to", (full ? states.first : states.dropFirst().first).map { .string($0) } ?? .null),
                ("exact", .bool(exact)),
            ]
        }

        private func sentence(_ difference: DiskDifference) -> String {
            let target = (full ? states.first : states.dropFirst().first).map { "'\($0)'" } ?? "the active state"
            let source = full ? "zeros" : "'\(states[0])'"
            let count = difference.extentCount
            return "\(size(difference.changedByteCount)) (\(difference.changedByteCount) bytes) changed "
                + "in \(count) \(count == 1 ? "extent" : "extents") from \(source) to \(target)."
        }
    }
}
