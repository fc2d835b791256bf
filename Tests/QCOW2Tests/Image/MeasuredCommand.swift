// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// The built command as a child process whose cost is known.
struct MeasuredCommand {
    /// The exit status; `nil` when a signal ended the process.
    let status: Int32?
    /// What it printed, both streams together.
    let output: String
    /// The most memory that the process had, in bytes.
    let peakByteCount: Int
    /// Seconds of processor time.
    let seconds: Double

    /// GNU time, which starts the command: Linux counts the memory of whoever spawned a process as that process's, and
    /// this one has more than any command may.
    static let time = "/usr/bin/time"
    static var isPossible: Bool { access(time, X_OK) == 0 }

    /// Runs the command to its end.
    init(_ arguments: [String]) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("output")
        let report = folder.file("report")
        let words = [Self.time, "-q", "-f", "%M", "-o", report, Tool.qsnap] + arguments
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        let argv = words.map { strdup($0) } + [nil]
        defer { for word in argv { free(word) } }
        var process: pid_t = 0
        let error = posix_spawn(&process, Self.time, &actions, nil, argv, environ)
        guard error == 0 else { throw Tool.Failed(description: "\(Self.time): \(String(cString: strerror(error)))") }
        var raw: Int32 = 0
        var usage = rusage()
        while wait4(process, &raw, 0, &usage) < 0 {
            guard errno == EINTR else { throw Tool.Failed(description: "wait4: \(errno)") }
        }
        // It ends with 128 and the number of the signal that ended the command.
        status = raw & 0x7F == 0 && raw >> 8 & 0xFF < 128 ? raw >> 8 & 0xFF : nil
        let kibibytes = try String(contentsOfFile: report, encoding: .utf8).split(whereSeparator: \.isWhitespace).last
        guard let kibibytes, let peak = Int(kibibytes) else { throw Tool.Failed(description: "No report of memory.") }
        peakByteCount = peak << 10
        seconds = [usage.ru_utime, usage.ru_stime].reduce(0) { $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6 }
        output = try withExtendedLifetime(folder) { try String(contentsOfFile: path, encoding: .utf8) }
    }
}
