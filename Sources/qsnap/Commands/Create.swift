// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Create: ImageCommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Create a snapshot of the disk inside an image.")

        @OptionGroup var options: ImageOptions

        @Argument(help: "The new snapshot's name. (default: the Unix time)")
        var name: String?

        func run() throws {
            var image = try options.openForWriting()
            let date = SnapshotDate.now
            let created = try options.perform { writeOptions in
                try image.createSnapshot(named: name ?? image.unusedName(from: date), date: date, options: writeOptions)
            }
            try options.report(
                "Created snapshot '\(created.shortName)' with ID \(created.shortID) in '\(options.image)'.",
                [("created", created.json)])
        }
    }
}

extension Image where S: ~Copyable {
    /// A date in Unix time as a name, with a number behind it where a snapshot has that name already.
    func unusedName(from date: SnapshotDate) -> String {
        let names = Set(snapshots.map(\.nameBytes))
        var name = String(date.seconds)
        var number = 1
        while names.contains(Array(name.utf8)) {
            number += 1
            name = "\(date.seconds)-\(number)"
        }
        return name
    }
}
