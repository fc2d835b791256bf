// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// The real command, ended by signals at any moment of its work.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct KillTests {
    /// Signals per verb: spread evenly over the time that the verb takes, and a little more.
    static let count = ProcessInfo.processInfo.environment["QCOW2_KILLS"].flatMap { Int($0) } ?? 50

    enum Verb: String, CaseIterable {
        case create, apply, applyAndSave, delete, rename

        func arguments(_ image: String) -> [String] {
            switch self {
            case .create: ["create", image, "new"]
            case .apply: ["apply", image, "first"]
            case .applyAndSave: ["apply", image, "first", "--save-current", "saved"]
            case .delete: ["delete", image, "first", "second"]
            case .rename: ["rename", image, "first", "renamed"]
            }
        }
    }

    @Test("SIGKILL leaves the old state or the new one, clean", arguments: Verb.allCases)
    func kill(_ verb: Verb) throws {
        try interrupt(verb, by: SIGKILL, Self.count) { _ in }
    }

    @Test(
        "SIGINT and SIGTERM end the command with a sentence that is true", arguments: Verb.allCases, [SIGINT, SIGTERM])
    func signal(_ verb: Verb, _ signal: Int32) throws {
        try interrupt(verb, by: signal, max(4, Self.count / 5)) { outcome in
            guard !outcome.wasKilled else {
                // Before the command was ready for signals: it had done nothing.
                #expect(!outcome.isNew)
                return
            }
            if outcome.status == 0 { return #expect(outcome.isNew, "\(verb): success without a change") }
            #expect(outcome.status == 128 + signal)
            #expect(
                outcome.errors.contains(outcome.isNew ? "it was done already" : "is as it was"), "\(outcome.errors)")
        }
    }

    struct Outcome {
        let status: Int32
        let wasKilled: Bool
        let isNew: Bool
        let errors: String
    }

    /// Runs a verb again and again on copies of an image, each time with a signal at another moment.
    private func interrupt(_ verb: Verb, by signal: Int32, _ count: Int, _ look: (Outcome) throws -> Void) throws {
        let folder = try TemporaryFolder()
        let original = folder.file("original.qcow2")
        try makeImage(original)
        let image = folder.file("disk.qcow2")
        func restore() throws { try Tool.check("cp", ["--sparse=always", original, image]) }
        try restore()
        let old = try Sample(image)
        let start = ContinuousClock.now
        try Tool.check(Tool.qsnap, verb.arguments(image))
        let duration = start.duration(to: .now)
        let new = try Sample(image)
        #expect(old != new)

        for number in 0..<count {
            try restore()
            let process = Process()
            process.executableURL = URL(fileURLWithPath: Tool.qsnap)
            process.arguments = verb.arguments(image)
            let errors = Pipe()
            process.standardOutput = FileHandle.nullDevice
            process.standardError = errors
            try process.run()
            let delay = duration * number / (count - 1) * 1.1
            usleep(UInt32(delay / .microseconds(1)))
            Foundation.kill(process.processIdentifier, signal)
            let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()

            let sample = try Sample(image)
            #expect(sample == old || sample == new, "\(verb), \(signal) after \(delay)")
            let check = try Tool.run("qemu-img", ["check", image])
            #expect(check.status == 0, "\(verb), \(signal) after \(delay)\n\(check.output)")
            try look(
                Outcome(
                    status: process.terminationStatus, wasKilled: process.terminationReason == .uncaughtSignal,
                    isNew: sample == new, errors: text))
        }
    }

    /// An image with enough metadata for the verbs to take a while, and two snapshots.
    private func makeImage(_ path: String) throws {
        try Tool.check(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,preallocation=metadata", path, "1G"])
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
