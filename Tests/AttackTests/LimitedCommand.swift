// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// A program that ran to its end, or into its limits.
struct LimitedCommand {
    /// The exit status; `nil` when a signal ended the program.
    let status: Int32?
    /// The signal that ended it.
    let signal: Int32?
    /// The most memory that it had, in bytes.
    let peakByteCount: Int
    /// Seconds of processor time.
    let seconds: Double
    /// What it printed on standard output.
    let output: [UInt8]
    /// What it printed on standard error.
    let errors: String

    /// What a program may use.
    struct Limits {
        /// Seconds of processor time, after which it is killed.
        var seconds = 4
        /// Bytes of address space.
        var addressSpace: Int?
    }

    static let time = "/usr/bin/time"
    static let isPossible = Tool.isInstalled(time) && Tool.isInstalled("timeout")

    /// The command under attack: the one that was built beside the tests, or another.
    static let qsnap = ProcessInfo.processInfo.environment["QCOW2_ATTACK_BINARY"] ?? Tool.qsnap

    /// Runs a program with no input.
    ///
    /// Twenty times its processor time ends it, too, should it wait for something.
    init(_ program: String, _ arguments: [String], _ limits: Limits = Limits(), in folder: TemporaryFolder) throws {
        let name = UUID().uuidString
        let (out, err, report) = (folder.file(name + ".out"), folder.file(name + ".err"), folder.file(name + ".time"))
        defer { for path in [out, err, report] { unlink(path) } }
        // GNU time starts it: Linux counts the memory of whoever spawned a process as that process's.
        let script = "ulimit -c 0 -t \"$1\"; ulimit -v \"$2\"; shift 2; exec \"$@\""
        let words =
            [Self.time, "-q", "-f", "%M %U %S", "-o", report, "timeout", "-s", "KILL", "\(limits.seconds * 20 + 20)"]
            + ["/bin/bash", "-c", script, "bash", "\(limits.seconds)"]
            + [limits.addressSpace.map { "\($0 >> 10)" } ?? "unlimited", program] + arguments
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, err, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        let argv = words.map { strdup($0) } + [nil]
        // A trap is to end the program, not to start a debugger.
        let environment = ProcessInfo.processInfo.environment.merging(
            ["SWIFT_BACKTRACE": "enable=no", "TZ": "UTC"]) { $1 }
        let envp = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for word in argv + envp { free(word) } }
        var process: pid_t = 0
        let error = posix_spawn(&process, Self.time, &actions, nil, argv, envp)
        guard error == 0 else { throw Tool.Failed(description: "\(Self.time): error \(error)") }
        var raw: Int32 = 0
        while waitpid(process, &raw, 0) < 0 {
            guard errno == EINTR else { throw Tool.Failed(description: "waitpid: \(errno)") }
        }
        let code = raw & 0x7F == 0 ? raw >> 8 & 0xFF : 128 + raw & 0x7F
        status = code < 128 ? code : nil
        signal = code < 128 ? nil : code - 128
        let numbers = try String(contentsOfFile: report, encoding: .utf8).split(separator: " ")
        peakByteCount = (numbers.first.flatMap { Int($0) } ?? 0) << 10
        seconds = numbers.dropFirst().reduce(0) { $0 + (Double($1.filter { !$0.isNewline }) ?? 0) }
        output = [UInt8](try Data(contentsOf: URL(fileURLWithPath: out)))
        errors = String(decoding: try Data(contentsOf: URL(fileURLWithPath: err)), as: UTF8.self)
    }

    /// What it printed on standard output, as JSON.
    var json: [String: Any]? { (try? JSONSerialization.jsonObject(with: Data(output))) as? [String: Any] }

    /// The address space that the command needs to do anything at all: a debug build maps far more than it uses.
    static let baseAddressSpace: Int = {
        guard let folder = try? TemporaryFolder() else { return 1 << 30 }
        var (low, high) = (4, 4096)
        while high - low > 4 {
            let middle = (low + high) / 2
            let run = try? LimitedCommand(qsnap, ["--version"], Limits(addressSpace: middle << 20), in: folder)
            if run?.status == 0 { high = middle } else { low = middle }
        }
        return high << 20
    }()
}
