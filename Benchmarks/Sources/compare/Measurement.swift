// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation

/// What one run of a command, or of several in a row, cost.
struct Measurement: Sendable {
    var seconds = 0.0
    /// Whether the run was ended because it took too long.
    var wasCut = false

    struct Failed: Error, CustomStringConvertible {
        let description: String
    }

    /// Runs commands one after the other, and adds up their times; cuts off what is not done after `limit` seconds.
    static func run(_ commands: [[String]], limit: Double) throws -> Measurement {
        var total = Measurement()
        for command in commands {
            let one = try run(command, limit: limit - total.seconds)
            total.seconds += one.seconds
            total.wasCut = one.wasCut
            if one.wasCut { break }
        }
        return total
    }

    private static func run(_ command: [String], limit: Double) throws -> Measurement {
        let start = ContinuousClock.now
        let process = try spawn(command)
        let killer = DispatchSource.makeTimerSource(queue: .global())
        killer.schedule(deadline: .now() + limit)
        killer.setEventHandler { kill(-process, SIGKILL) }
        killer.resume()
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        killer.cancel()
        let elapsed = start.duration(to: .now)
        var measurement = Measurement()
        measurement.seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        measurement.wasCut = status & 0x7F == SIGKILL
        guard measurement.wasCut || status == 0 else {
            throw Failed(description: "\(command.joined(separator: " ")) ended with wait status \(status)")
        }
        return measurement
    }

    /// The largest resident memory of commands, in a run of its own.
    ///
    /// GNU time starts the command, because a process inherits the peak of the one that starts it, and ours is larger.
    static func peakByteCount(_ commands: [[String]], in folder: String) throws -> Int {
        let report = folder + "/time.txt"
        return try commands.map { command in
            _ = try run([["time", "-f", "%M", "-o", report] + command], limit: .infinity)
            let text = try String(contentsOfFile: report, encoding: .utf8)
            return (Int(text.split(whereSeparator: \.isWhitespace).last ?? "") ?? 0) * 1024
        }.max() ?? 0
    }

    /// Starts a command in a process group of its own, with its output thrown away.
    private static func spawn(_ command: [String]) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var process: pid_t = 0
        let error = posix_spawnp(&process, command[0], &actions, &attributes, &arguments, environ)
        guard error == 0 else {
            throw Failed(description: "\(command[0]) can't be started: \(String(cString: strerror(error)))")
        }
        return process
    }
}

/// What a command asks of the operating system, counted by strace in a run of its own.
struct SystemCalls: Codable, Sendable {
    var count = 0
    var readByteCount = 0
    var writtenByteCount = 0
    var flushCount = 0

    /// What reads, writes, flushes or changes files; a filter in the kernel keeps strace from slowing down the rest.
    private static let filter =
        "trace=read,pread64,preadv,preadv2,write,pwrite64,pwritev,pwritev2,copy_file_range,fsync,fdatasync,"
        + "sync_file_range,fallocate,ftruncate,lseek,fadvise64,fcntl"

    static func count(_ commands: [[String]], in folder: String) throws -> SystemCalls {
        var calls = SystemCalls()
        let log = folder + "/strace.log"
        for command in commands {
            _ = try Measurement.run(
                [["strace", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-o", log, "-e", Self.filter] + command],
                limit: .infinity)
            for line in try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n") {
                // 1234  pwrite64(3, "..."..., 65536, 0) = 65536, or in two lines, begun and resumed.
                let words = line.split(separator: " ").dropFirst()
                guard let first = words.first else { continue }
                let isResumed = first == "<..."
                let name = isResumed ? words.dropFirst().first ?? "" : first.prefix { $0 != "(" }
                if !isResumed { calls.count += 1 }
                if !isResumed, name == "fsync" || name == "fdatasync" { calls.flushCount += 1 }
                guard let equals = line.range(of: " = ", options: .backwards) else { continue }
                let byteCount = Int(line[equals.upperBound...].prefix { $0.isNumber }) ?? 0
                if name.contains("write") { calls.writtenByteCount += byteCount }
                if name.contains("read") { calls.readByteCount += byteCount }
            }
        }
        return calls
    }
}
