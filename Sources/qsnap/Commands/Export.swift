// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Export: ReadCommand {
        static let configuration = CommandConfiguration(
            commandName: "export",
            abstract: "Write one state of the disk to a file of its own, at that state's own size.",
            usage: "qsnap export <image> [<snapshot>] <output> [options]",
            discussion: """
                Without SNAPSHOT, the active state. OUTPUT appears under its name when it is complete; until then it has \
                another name in the same directory. Zeros become holes. With - the disk goes to standard output.

                A file that is replaced keeps its owner and permissions. Never replaced are files that a program uses, \
                the image itself, and what it names.
                """)

        @OptionGroup var reading: DiskReadingOptions

        @Argument(
            help: ArgumentHelp("The snapshot's ID or name, if any; the new file.", valueName: "snapshot> <output"))
        var words: [String]

        @Option(help: ArgumentHelp("The new file's format: raw or qcow2.", valueName: "format"))
        var format = OutputFormat.raw

        @Option(
            defaultAsFlag: CompressionMethod.deflate,
            help: ArgumentHelp("Compress the clusters of a qcow2 file: deflate or zstd.", valueName: "method"))
        var compress: CompressionMethod?

        @Option(help: ArgumentHelp("Write the snapshot's VM state to another file, as it is.", valueName: "file"))
        var vmState: String?

        @Flag(help: "Replace files that are there already.")
        var force = false

        @Flag(help: "With --force: replace files even where the file system has no locks that say who uses them.")
        var noLock = false

        @Flag(
            inversion: .prefixedNo,
            help: "Wait until the new file is on stable storage. Without it, a power loss may leave an incomplete one.")
        var sync = true

        private var output: String { words[words.count - 1] }
        private var snapshot: String? { words.count == 2 ? words[0] : nil }

        func validate() throws {
            guard (1...2).contains(words.count) else {
                throw ValidationError("Name one output, and one snapshot at most.")
            }
            guard compress == nil || format == .qcow2 else {
                throw ValidationError("--compress needs --format qcow2: raw files aren't compressed.")
            }
            guard output != "-" || format == .raw else {
                throw ValidationError("Only raw can go to standard output: a qcow2 file isn't written in one go.")
            }
            guard vmState == nil || snapshot != nil else { throw ValidationError("--vm-state needs a snapshot.") }
            guard vmState != "-" else { throw ValidationError("The VM state can only go to a file.") }
            guard vmState.map({ Array($0.utf8) }) != Array(output.utf8) else {
                throw ValidationError("The disk and the VM state need different files.")
            }
        }

        func run() throws {
            let reader = try reading.openReader()
            let view = try reader.view(of: reading.state(snapshot))
            if vmState != nil, view.vmStateSize == 0 {
                throw Failure("'\(reading.image)': the snapshot has no VM state: no machine was running.", status: 6)
            }
            try reading.perform("there is no new file.") { progress in
                var options = ExportOptions()
                options.replacesExisting = force
                options.locks = noLock ? .ifAvailable : .forWriting
                options.flushes = sync
                options.progress = progress
                if let vmState {
                    try view.exportVMState(to: vmState, options: options)
                    options.keptFiles = [vmState]
                }
                guard output != "-" else {
                    return try view.readAll(progress: progress) { (range, bytes) throws(QCOW2Error) in
                        try Console.write(bytes, or: range.upperBound.rawValue - range.lowerBound.rawValue)
                    }
                }
                if format == .qcow2 { options.format = .qcow2(compression: compress?.type) }
                try view.export(to: output, options: options)
            }
            guard output != "-" else { return }
            let source = snapshot.map { "snapshot '\($0)'" } ?? "the active state"
            var sentence = "Exported \(source) of '\(reading.image)' to '\(output)': \(size(view.virtualSize))"
            if let vmState { sentence += ", and \(size(view.vmStateSize)) of VM state to '\(vmState)'" }
            let members: [(String, JSON)] = [
                ("image", .string(reading.image)), ("snapshot", snapshot.map { .string($0) } ?? .null),
                ("output", .string(output)), ("format", .string(format.rawValue)),
                ("virtual-size", .number(view.virtualSize)),
                ("vm-state", vmState.map { .string($0) } ?? .null),
                ("vm-state-size", .number(view.vmStateSize)),
            ]
            sentence += "."
            try Console.write(
                (reading.json ? JSON.object(members).text() : printable(sentence)) + "\n", after: sentence)
        }
    }
}

enum OutputFormat: String, ExpressibleByArgument {
    case raw, qcow2
}

enum CompressionMethod: String, ExpressibleByArgument {
    case deflate, zstd

    var type: CompressionType {
        switch self {
        case .deflate: .deflate
        case .zstd: .zstd
        }
    }
}
