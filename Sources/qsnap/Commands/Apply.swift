// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Apply: ImageCommand {
        static let configuration = CommandConfiguration(
            commandName: "apply",
            abstract: "Make the disk what it was when a snapshot was created, its size included.",
            discussion: """
                What the disk holds now is lost, unless --save-current keeps it as a snapshot. Both happen in one \
                step: an interrupted command leaves all of the old state or all of the new one.
                """)

        @OptionGroup var options: ImageOptions

        @Argument(help: "The snapshot's ID or name.")
        var snapshot: String

        @Option(
            defaultAsFlag: SavedName.unixTime,
            help: ArgumentHelp("Keep the current state as a new snapshot.", valueName: "name"))
        var saveCurrent: SavedName?

        @Flag(help: "Give up the image's bitmaps, which no longer match the disk afterwards.")
        var force = false

        func run() throws {
            var image = try options.openForWriting()
            let date = SnapshotDate.now
            let savedName =
                switch saveCurrent {
                case nil: String?.none
                case .unixTime: image.unusedName(from: date)
                case .text(let name): name
                }
            let applied = try options.perform { writeOptions in
                try image.applySnapshot(
                    SnapshotSelector(parsing: snapshot), savingCurrentAs: savedName, date: date,
                    bitmaps: force ? .drop : .refuse, options: writeOptions)
            }
            let saved = try savedName.map { name throws(QCOW2Error) in try image.snapshot(.name(name)) }
            var sentence = "Applied snapshot '\(applied.shortName)' to '\(options.image)'"
            if let saved {
                sentence += "; the previous state is snapshot '\(saved.shortName)' with ID \(saved.shortID)"
            }
            try options.report(sentence + ".", [("applied", applied.json), ("saved", saved?.json ?? .null)])
        }
    }
}

/// The name for the current state; an empty one is a mistake and not the Unix time.
enum SavedName: ExpressibleByArgument, CustomStringConvertible {
    case unixTime
    case text(String)

    init(argument: String) { self = .text(argument) }

    /// For the help, which shows what the option means without a name.
    var description: String {
        switch self {
        case .unixTime: "the Unix time"
        case .text(let name): name
        }
    }
}
