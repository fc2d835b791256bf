// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// The end of a command that didn't do what was asked: what to say, and the documented exit status.
struct Failure: Error {
    let message: String
    let status: Int32

    /// The failure of an operation on the image at `path`, which the message then names: what the library says about a
    /// file's content doesn't.
    ///
    /// The hint says what would allow a backing file to be opened.
    init(_ error: QCOW2Error, in path: String?, hint: String? = nil) {
        var text = error.description
        if error.code == .backingFileNotAllowed, let hint { text = "\(text.dropLast()); \(hint)." }
        message = if let path, !text.utf8.contains("'\(path)'".utf8) { "'\(path)': \(text)" } else { text }
        status =
            switch error.code {
            case .corrupt, .needsRepair: 2
            case .noSuchSnapshot, .ambiguousSnapshot: 4
            case .inUse: 5
            case .unsupported, .activeBitmaps, .limitExceeded, .backingFileNotAllowed, .locksUnavailable: 6
            case .notQCOW2: 7
            case .invalidName: 64
            default: 1
            }
    }

    init(_ message: String, status: Int32 = 1) {
        self.message = message
        self.status = status
    }

    /// Says the message on one line of standard error.
    func report() { if !message.isEmpty { Console.writeError("qsnap: \(printable(message))\n") } }

    func exit() -> Never {
        report()
        QSnap.exit(withError: ExitCode(status))
    }
}
