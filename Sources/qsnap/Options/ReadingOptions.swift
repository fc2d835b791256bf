// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// What commands take that only read one image.
struct ReadingOptions: ParsableArguments {
    @Argument(help: "The qcow2 image file.", completion: .file())
    var image: String

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(name: [.long, .customShort("U")], help: "Read the image even while another process writes to it.")
    var forceShare = false

    @OptionGroup var sandbox: SandboxOptions

    /// Opens the image, in the sandbox unless the command writes a file.
    func open(isSandboxed: Bool = true, backing: Sandbox.Opening? = nil) throws(QCOW2Error) -> Image<FileStorage> {
        let opened: Image<FileStorage>
        if isSandboxed {
            opened = try Image(storage: sandbox.open(image, sharesByForce: forceShare, backing: backing))
        } else {
            opened = try Image.open(image, for: forceShare ? .readingWithoutLock : .reading)
        }
        if sandbox.verbose { opened.reportLocking(image) }
        return opened
    }

    /// The backing files that may be opened: in the image's folder, or anywhere.
    func backing(anywhere: Bool) -> Sandbox.Opening {
        guard !anywhere else { return .anything }
        let slash = image.utf8.lastIndex(of: UInt8(ascii: "/"))
        let folder = slash.map { String(image[...$0]) } ?? "."
        return .files([folder])
    }
}

/// A command that only reads one image.
protocol ImageReadingCommand: ParsableCommand {
    var options: ReadingOptions { get }
}

/// Shows progress on a terminal while an image's metadata is read.
struct ScanProgress {
    private let bar = ProgressBar()

    var options: ScanOptions {
        var options = ScanOptions()
        let bar = bar
        options.progress = { progress in
            bar.show(progress)
            return true
        }
        return options
    }

    /// Leaves an empty line; before anything is printed.
    func clear() { bar.clear() }
}
