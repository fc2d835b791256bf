// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// What every command that reads the disk takes.
struct DiskReadingOptions: ParsableArguments {
    @OptionGroup private var reading: ReadingOptions

    @Flag(
        help: """
            Open backing files wherever they are. Without it, only those in the directory of the image that names \
            them are opened.
            """)
    var allowBacking = false

    func openReader() throws(QCOW2Error) -> ImageReader<FileStorage> {
        try ImageReader(reading.open(), backing: allowBacking ? .anyFile : .sameDirectory)
    }

    var image: String { reading.image }
    var json: Bool { reading.json }

    /// The state that a command's argument means.
    func state(_ snapshot: String?) -> DiskState {
        snapshot.map { .snapshot(SnapshotSelector(parsing: $0)) } ?? .active
    }

    /// Carries out an operation, with progress on a terminal, until a signal comes; the sentence says what that leaves.
    func perform<Result>(
        _ sentence: String, _ body: (@escaping @Sendable (Progress) -> Bool) throws -> Result
    ) throws -> Result {
        let bar = ProgressBar()
        defer { bar.clear() }
        Interruption.catchSignals()
        do {
            return try body { progress in
                bar.show(progress)
                return Interruption.signal == 0
            }
        } catch let error as QCOW2Error where error.code == .cancelled {
            throw Interruption.failure(sentence) ?? Failure(error, in: image)
        } catch let error as QCOW2Error {
            throw Failure(error.namingNoLock, in: image, hint: allowBacking ? nil : "--allow-backing allows it")
        }
    }
}

/// A command that reads the disk of one image.
protocol ReadCommand: ParsableCommand {
    var reading: DiskReadingOptions { get }
}
