// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Rename: ImageCommand {
        static let configuration = CommandConfiguration(
            commandName: "rename", abstract: "Give a snapshot another name.")

        @OptionGroup var options: ImageOptions

        @Argument(help: "The snapshot's ID or name.")
        var snapshot: String

        @Argument(help: "The new name.")
        var newName: String

        func run() throws {
            var image = try options.openForWriting()
            let selector = SnapshotSelector(parsing: snapshot)
            let old = try image.snapshot(selector)
            let renamed = try options.perform { writeOptions in
                try image.renameSnapshot(selector, to: newName, options: writeOptions)
            }
            try options.report(
                "Renamed snapshot '\(old.shortName)' with ID \(old.shortID) to '\(renamed.shortName)' "
                    + "in '\(options.image)'.",
                [("renamed", renamed.json), ("old-name", .string(old.name))])
        }
    }
}
