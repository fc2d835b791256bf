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

    @Flag(name: .shortAndLong, help: "Say on standard error how other programs are kept out of the image.")
    var verbose = false

    @Flag(
        help: """
            Write even where the file system has no locks: nothing then keeps a virtual machine from writing, too.
            """)
    var noLock = false

    @Option(
        help: ArgumentHelp(
            "About how much memory to count references in, such as 256M; 72M unless given.", valueName: "size"),
        transform: MemorySize.init(parsing:))
    var memory: MemorySize?

    func openForWriting() throws -> Image<FileStorage> { try open(for: .writing) }

    func open(for access: FileStorage.Access) throws -> Image<FileStorage> {
        let opened = try Image.open(image, for: access, noLock: noLock)
        if verbose { opened.reportLocking(image) }
        return opened
    }

    /// Carries out an operation, with progress on a terminal, until a signal comes.
    ///
    /// - Throws: What `body` throws, or a ``Failure`` that says in which state a signal left the image.
    func perform<Result>(_ body: (WriteOptions) throws -> Result) throws -> Result {
        let bar = ProgressBar()
        var options = WriteOptions()
        options.discardsFreedClusters = discard
        if let memory { options.memoryBudget = memory.byteCount }
        options.progress = { progress in
            bar.show(progress)
            return Interruption.signal == 0
        }
        defer { bar.clear() }
        Interruption.catchSignals()
        do {
            return try body(options)
        } catch let error as QCOW2Error where error.code == .cancelled {
            throw Interruption.failure("'\(image)' is as it was.") ?? Failure(error, in: image)
        }
    }

    /// Prints what was done, as a sentence or as an object with the image's name in front.
    ///
    /// - Throws: ``Failure`` that begins with the sentence: what was done stays done when nobody can be told.
    func report(_ sentence: String, _ members: [(String, JSON)]) throws(Failure) {
        let text = json ? JSON.object([("image", .string(image))] + members).text() : printable(sentence)
        try Console.write(text + "\n", after: sentence)
        if let failure = Interruption.failure("but it was done already.") { throw failure }
    }
}

extension Image where S == FileStorage {
    /// Opens an image file; the refusal to write without locks names the option that allows it.
    fileprivate static func open(
        _ path: String, for access: FileStorage.Access, noLock: Bool
    ) throws(QCOW2Error) -> Image<FileStorage> {
        do throws(QCOW2Error) {
            return try open(path, for: access, locks: noLock ? .ifAvailable : .forWriting)
        } catch {
            throw error.namingNoLock
        }
    }
}

extension QCOW2Error {
    /// The error, with the option that allows to go on where there are no locks.
    var namingNoLock: Self {
        guard code == .locksUnavailable else { return self }
        var error = self
        error.message = "\(message.dropLast()); --no-lock goes on all the same."
        return error
    }
}

/// A command that works on one image.
protocol ImageCommand: ParsableCommand {
    var options: ImageOptions { get }
}
