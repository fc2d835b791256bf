// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "List the snapshots inside images.",
            discussion: "Opens the images for reading only; needs neither backing files nor encryption keys.")

        @Argument(help: "The qcow2 image files.", completion: .file())
        var images: [String]

        @Flag(help: "Print JSON.")
        var json = false

        @Flag(name: [.long, .customShort("U")], help: "Read an image even while another process writes to it.")
        var forceShare = false

        @Flag(name: .shortAndLong, help: "Say on standard error how other programs are kept out of the images.")
        var verbose = false

        @Flag(help: "Say how much each snapshot holds, too, which means reading all of the image's metadata.")
        var usage = false

        func run() throws {
            var failures: [Failure] = []
            var sections: [String] = []
            var objects = ListedImages()
            for path in images {
                do throws(QCOW2Error) {
                    let image = try Image.open(path, for: forceShare ? .readingWithoutLock : .reading)
                    if verbose { image.reportLocking(path) }
                    let snapshots = image.snapshots
                    let usages = usage ? try usages(in: image) : nil
                    guard json else {
                        sections.append(section(path, snapshots, usages))
                        continue
                    }
                    objects.add(path, virtualSize: image.virtualSize, snapshots, usages)
                } catch {
                    failures.append(Failure(error, in: path))
                }
            }
            do throws(Failure) {
                if json { try objects.finish() } else { try Console.write(sections.joined(separator: "\n")) }
            } catch {
                failures.append(error)
            }
            for failure in failures.dropLast() { failure.report() }
            // The first failure decides the exit status; all have been said.
            if let last = failures.last, let first = failures.first {
                throw Failure(last.message, status: first.status)
            }
        }

        private func usages(in image: borrowing Image<FileStorage>) throws(QCOW2Error) -> [StateUsage] {
            let progress = ScanProgress()
            defer { progress.clear() }
            return try image.usage(options: progress.options).snapshots
        }

        private func section(_ path: String, _ snapshots: [Snapshot], _ usages: [StateUsage]?) -> String {
            let heading = images.count > 1 ? "\(printable(path)):\n" : ""
            guard !snapshots.isEmpty else { return heading + "No snapshots.\n" }
            // The disk's size is a column of the list already.
            let titles = Snapshot.columnTitles + (usages == nil ? [] : StateUsage.columnTitles.dropFirst())
            let rows = snapshots.indices.map { index in
                snapshots[index].columns + (usages?[index].columns.dropFirst() ?? [])
            }
            return heading + table([titles] + rows)
        }
    }
}
