// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Inspect: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "inspect",
            abstract: "Show what an image is, even one that can't be opened, and what an examiner should know.",
            discussion: """
                Opens the image for reading only and changes nothing, not even its times of change; opens no other \
                file, whatever the image names. Shows everything that still parses.

                Exit status: 0 when the image was inspected, whatever was found; 7 when the file doesn't start like a \
                qcow2 image, but what can be shown is shown.
                """)

        @Argument(help: "The qcow2 image file.", completion: .file())
        var image: String

        @Flag(help: "Print the fields of every structure, with their offsets and bytes.")
        var dump = false

        @Flag(help: "Print JSON: everything, the fields included.")
        var json = false

        @Flag(name: [.long, .customShort("U")], help: "Read an image even while another process writes to it.")
        var forceShare = false

        @OptionGroup var sandbox: SandboxOptions

        @Option(
            help: ArgumentHelp(
                "Search at most so many MiB of unused clusters for remnants of snapshots.", valueName: "mib"))
        var search: UInt32 = 1024

        func run() throws {
            var options = InspectionOptions()
            options.searchByteLimit = UInt64(search) << 20
            let bar = ProgressBar()
            Interruption.catchSignals()
            options.progress = { progress in
                bar.show(progress)
                return Interruption.signal == 0
            }
            let inspection: Inspection
            do throws(QCOW2Error) {
                let storage = try sandbox.open(image, sharesByForce: forceShare)
                inspection = try Inspection(of: storage, options: options)
                bar.clear()
            } catch {
                bar.clear()
                if error.code == .cancelled, let failure = Interruption.failure("'\(image)' was not inspected.") {
                    throw failure
                }
                throw Failure(error, in: image)
            }
            if json {
                try Console.write(inspection.json(path: image).text() + "\n")
            } else {
                try Console.write(inspection.summary(path: image) + (dump ? "\n" + inspection.dumpText : ""))
            }
            guard inspection.hasMagic else {
                throw Failure("'\(image)' is not a qcow2 image: it doesn't start with the magic number.", status: 7)
            }
        }
    }
}
