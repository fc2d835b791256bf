// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// The real command, ended by signals at any moment of its work on a large image.
///
/// By default 64 GiB in clusters of 256 KiB. `QCOW2_KILLS` is the number of kills per verb; `QCOW2_KILL_SIZE` a size in
/// GiB, then in clusters of 64 KiB; `QCOW2_QSNAP` the path of another build of the command.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct KillTests {
    static let environment = ProcessInfo.processInfo.environment
    static let count = environment["QCOW2_KILLS"].flatMap { Int($0) } ?? 34
    static let size = environment["QCOW2_KILL_SIZE"].flatMap { Int($0) }
    static let gibibytes = size ?? 64

    enum Verb: String, CaseIterable {
        case create, apply, applyAndSave, delete, deleteMany, rename

        func arguments(_ image: String) -> [String] {
            switch self {
            case .create: ["create", image, "new"]
            case .apply: ["apply", image, "first"]
            case .applyAndSave: ["apply", image, "first", "--save-current", "saved"]
            case .delete: ["delete", image, "first"]
            case .deleteMany: ["delete", image, "first", "second"]
            case .rename: ["rename", image, "first", "renamed"]
            }
        }
    }

    @Test("SIGKILL leaves the old state or the new one, clean", arguments: Verb.allCases)
    func kill(_ verb: Verb) throws {
        try interrupt(verb, by: SIGKILL, Self.count) { outcome in
            let name = outcome.isNew ? "new state" : outcome.isTouched ? "old state, new tables begun" : "old state"
            TestTally.add(1, to: name, of: "SIGKILL survived on \(Self.gibibytes) GiB")
            TestTally.add(1, to: "\(verb)", of: "SIGKILL survived, by verb")
        }
    }

    @Test(
        "SIGINT and SIGTERM end the command with a sentence that is true", arguments: Verb.allCases, [SIGINT, SIGTERM])
    func signal(_ verb: Verb, _ signal: Int32) throws {
        try interrupt(verb, by: signal, max(4, Self.count / 6)) { outcome in
            TestTally.add(1, to: "\(verb)", of: "SIGINT and SIGTERM")
            guard !outcome.wasKilled else {
                // Before the command was ready for signals: it had done nothing.
                #expect(!outcome.isNew && !outcome.isTouched)
                return
            }
            if outcome.status == 0 { return #expect(outcome.isNew, "\(verb): success without a change") }
            #expect(outcome.status == 128 + signal)
            #expect(
                outcome.errors.contains(outcome.isNew ? "it was done already" : "is as it was"), "\(outcome.errors)")
            // What was begun is cut off again.
            if !outcome.isNew { #expect(!outcome.isLonger, "\(verb): \(outcome.errors)") }
        }
    }

    struct Outcome {
        let status: Int32
        let wasKilled: Bool
        let isNew: Bool
        /// Whether the file was written to at all.
        let isTouched: Bool
        /// Whether the file is longer than before.
        let isLonger: Bool
        let errors: String
    }

    /// Runs a verb again and again on copies of an image, each time with a signal at another moment: half of them
    /// spread over the whole run, half over the time in which it writes.
    private func interrupt(_ verb: Verb, by signal: Int32, _ count: Int, _ look: (Outcome) throws -> Void) throws {
        let folder = try TemporaryFolder()
        let original = folder.file("original.qcow2")
        try makeImage(original)
        let image = folder.file("disk.qcow2")
        func restore() throws -> Trace {
            try Tool.check("cp", ["--sparse=always", original, image])
            return try Trace(image)
        }
        let before = try restore()
        let old = try Sample(image)
        let trial = try start(verb, image)
        let start = ContinuousClock.now
        let firstWrite = Self.wait(for: trial.process, toChange: image, from: before) ? start.duration(to: .now) : .zero
        _ = trial.errors.fileHandleForReading.readDataToEndOfFile()
        trial.process.waitUntilExit()
        let duration = start.duration(to: .now)
        #expect(trial.process.terminationStatus == 0)
        let new = try Sample(image)
        #expect(old != new)

        for number in 0..<count {
            let before = try restore()
            let (process, errors) = try self.start(verb, image)
            var delay = duration * number / max(1, count - 1) * 1.1
            if number % 2 == 1 {
                _ = Self.wait(for: process, toChange: image, from: before)
                delay = (duration - firstWrite) * number / max(1, count - 1) * 1.1
            }
            usleep(UInt32(max(0, delay / .microseconds(1))))
            Foundation.kill(process.processIdentifier, signal)
            let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()

            let after = try Trace(image)
            let sample = try Sample(image)
            #expect(sample == old || sample == new, "\(verb), \(signal) after \(delay)")
            let check = try Tool.run("qemu-img", ["check", image])
            #expect(check.status == 0, "\(verb), \(signal) after \(delay)\n\(check.output)")
            try look(
                Outcome(
                    status: process.terminationStatus, wasKilled: process.terminationReason == .uncaughtSignal,
                    isNew: sample == new, isTouched: after != before, isLonger: after.byteCount > before.byteCount,
                    errors: text))
        }
    }

    private func start(_ verb: Verb, _ image: String) throws -> (process: Process, errors: Pipe) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Self.environment["QCOW2_QSNAP"] ?? Tool.qsnap)
        process.arguments = verb.arguments(image)
        let errors = Pipe()
        process.standardOutput = FileHandle.nullDevice
        process.standardError = errors
        try process.run()
        return (process, errors)
    }

    /// Waits until a process has begun to write.
    private static func wait(for process: Process, toChange image: String, from before: Trace) -> Bool {
        while process.isRunning {
            if let now = try? Trace(image), now != before { return true }
            usleep(200)
        }
        return false
    }

    /// What shows that a file was written to.
    private struct Trace: Hashable {
        let byteCount: Int
        let seconds: Int
        let nanoseconds: Int

        init(_ path: String) throws {
            var status = stat()
            guard stat(path, &status) == 0 else { throw Tool.Failed(description: "stat failed") }
            byteCount = Int(status.st_size)
            #if canImport(Darwin)
                (seconds, nanoseconds) = (status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec)
            #else
                (seconds, nanoseconds) = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
            #endif
        }
    }

    /// An image with enough metadata for the verbs to take a while, and two snapshots.
    private func makeImage(_ path: String) throws {
        let options = "preallocation=metadata,cluster_size=\(Self.size == nil ? 256 : 64)k"
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, path, "\(Self.gibibytes)G"])
        for (name, byte) in [("first", 1), ("second", 2)] {
            try Tool.check("qemu-io", ["-c", "write -P \(byte) 0 64k", "-c", "write -P \(byte) 512M 64k", path])
            try Tool.check("qemu-img", ["snapshot", "-c", name, path])
        }
        try Tool.check("qemu-io", ["-c", "write -P 3 0 64k", "-c", "write -P 3 1000M 64k", path])
    }

    /// What can be seen of an image: its snapshots, and what each state holds where it was written.
    struct Sample: Hashable {
        private var names: [String]
        private var bytes: [[UInt8]] = []

        init(_ path: String) throws {
            let image = try Image.open(path, for: .reading)
            names = image.snapshots.map { "\($0.id) \($0.name)" }
            let states = [DiskState.active] + image.snapshots.map { .snapshot(.id($0.id)) }
            for state in states {
                for offset in [0, 512 << 20, 1000 << 20] {
                    bytes.append(try image.read(65536, at: GuestOffset(UInt64(offset)), of: state))
                }
            }
        }
    }
}
