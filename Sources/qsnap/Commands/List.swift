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

        @OptionGroup var sandbox: SandboxOptions

        @Flag(help: "Say how much each snapshot holds, too, which means reading all of the image's metadata.")
        var usage = false

        func run() throws {
            var failures: [Failure] = []
            var sections: [String] = []
            var objects = ListedImages()
            var files = openedFiles()
            for path in images {
                do throws(QCOW2Error) {
                    let image = try Image(storage: files.next(path))
                    if sandbox.verbose { image.reportLocking(path) }
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

        /// Opens the files, and shuts the command in before anything is read of them.
        private func openedFiles() -> ListedFiles {
            let access: FileStorage.Access = forceShare ? .readingWithoutLock : .reading
            let files = ListedFiles(images, access)
            sandbox.enter(files.laterOpening)
            return files
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
