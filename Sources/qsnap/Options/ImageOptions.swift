// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// What every command that writes takes.
struct ImageOptions: ParsableArguments {
    @Argument(help: "The qcow2 image file.", completion: .file())
    var image: String

    @Flag(help: "Print JSON.")
    var json = false

    @Flag(inversion: .prefixedNo, help: "Give the space of freed clusters back to the file system at once.")
    var discard = true

    func openForWriting() throws -> Image<FileStorage> { try Image.open(image, for: .writing) }

    var writeOptions: WriteOptions {
        var options = WriteOptions()
        options.discardsFreedClusters = discard
        return options
    }

    /// Prints what was done, as a sentence or as an object with the image's name in front.
    ///
    /// - Throws: ``Failure`` that begins with the sentence: what was done stays done when nobody can be told.
    func report(_ sentence: String, _ members: [(String, JSON)]) throws(Failure) {
        let text = json ? JSON.object([("image", .string(image))] + members).text() : printable(sentence)
        try Console.write(text + "\n", after: sentence)
    }
}

/// A command that works on one image.
protocol ImageCommand: ParsableCommand {
    var options: ImageOptions { get }
}
