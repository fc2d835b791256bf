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

    func open() throws(QCOW2Error) -> Image<FileStorage> {
        try Image.open(image, for: forceShare ? .readingWithoutLock : .reading)
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
