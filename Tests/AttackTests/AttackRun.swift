// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2Testing
import TestTools

/// Everything that is done to one mutant.
struct AttackRun {
    /// A broken promise.
    struct Violation: CustomStringConvertible {
        let kind: AttackClass
        let words: [String]
        let detail: String
        var description: String { "\(kind.rawValue): \(words.joined(separator: " ")): \(detail)" }
    }

    private(set) var violations: [Violation] = []
    private(set) var commandCount = 0
    let mutant: Mutant
    private let folder: TemporaryFolder
    private let path: String

    init(_ mutant: Mutant) throws {
        self.mutant = mutant
        folder = try TemporaryFolder()
        path = folder.file("m.qcow2")
        try mutant.write(to: path)
    }

    /// The commands that read.
    private static func readers(_ path: String, _ output: String) -> [[String]] {
        [
            ["list", path], ["list", path, "--usage", "--json"], ["usage", path], ["check", path, "--deep"],
            ["inspect", path], ["inspect", path, "--dump", "--json"], ["map", path], ["map", path, "id:1", "--json"],
            ["diff", path, "id:1"], ["export", path, output + "1"], ["export", path, "id:1", output + "2"],
            ["check", path, "--repair", "all", "--dry-run"], ["delete", path, "--all", "--dry-run"],
            ["qemu-img", "info", path], ["qemu-img", "check", "--output=json", path], ["qemu-img", "map", path],
            ["qemu-img", "snapshot", "-l", path], ["qemu-img", "convert", "-O", "raw", path, output + "3"],
        ]
    }

    /// Runs a command of ours under limits, and says what it broke.
    private mutating func run(_ words: [String], sparing isRead: Bool = true) throws -> LimitedCommand {
        // Debug builds take some 20 times as long for a table as release builds.
        let extra = 160 << 20 + allocatedByteCount
        let limits = LimitedCommand.Limits(addressSpace: LimitedCommand.baseAddressSpace + extra)
        let result = try LimitedCommand(LimitedCommand.qsnap, words, limits, in: folder)
        commandCount += 1
        let errors = String(result.errors.prefix(200))
        switch result.signal {
        case SIGXCPU?, SIGKILL?: report(.time, words, "no end after \(result.seconds) s")
        case let signal?:
            // Out of memory ends in a trap or an abort, too.
            let isMemory = [SIGABRT, SIGILL, SIGTRAP, SIGSEGV].contains(signal) && result.peakByteCount > 64 << 20
            report(
                isMemory ? .memory : .endedBySignal, words,
                "signal \(signal), \(result.peakByteCount >> 20) MiB; \(errors)")
        case nil:
            if !Self.isDocumented(result.status ?? 0, words) {
                report(.status, words, "\(result.status ?? 0); \(errors)")
            }
            if result.peakByteCount > 128 << 20 + allocatedByteCount {
                report(.memory, words, "\(result.peakByteCount >> 20) MiB")
            }
            if result.seconds > 2 + Double(allocatedByteCount) / Double(4 << 20) {
                report(.time, words, "\(result.seconds) s")
            }
        }
        return result
    }

    private static func isDocumented(_ status: Int32, _ words: [String]) -> Bool {
        words[0] == "qemu-img" ? [0, 1, 2, 3, 63].contains(status) : (0...7).contains(status) || status == 64
    }

    private var allocatedByteCount: Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_blocks) * 512 : 0
    }

    private mutating func report(_ kind: AttackClass, _ words: [String], _ detail: String) {
        violations.append(Violation(kind: kind, words: words.map { $0 == path ? "IMAGE" : $0 }, detail: detail))
    }

    /// Lets every command read the mutant.
    mutating func read() throws {
        for words in Self.readers(path, folder.file("out")) {
            _ = try run(words)
            guard try mutant.isUnchanged(at: path) else {
                report(.failureChangesFile, words, "a command that reads changed the file")
                return try mutant.write(to: path)
            }
        }
    }

    /// Lets verbs change copies, and judges what they did.
    mutating func write(_ verbs: [AttackVerb]) throws {
        let before = try Verdict(of: path, in: folder)
        let list = try LimitedCommand(LimitedCommand.qsnap, ["list", "--json", path], in: folder)
        let images = list.json?["images"] as? [[String: Any]]
        let first = (images?.first?["snapshots"] as? [[String: Any]])?.first
        for verb in verbs {
            try mutant.write(to: path)
            let (id, name) = (first?["id"] as? String, first?["name"] as? String)
            guard let words = verb.words(path, snapshot: id, name) else { continue }
            let result = try run(words)
            if let status = result.status, verb.isFailure(status) {
                if try !mutant.isUnchanged(at: path) { report(.failureChangesFile, words, "status \(status)") }
                continue
            }
            let after = try Verdict(of: path, in: folder)
            for (kind, detail) in before.breaches(after: after, verb) {
                report(kind, words, "\(detail), status \(result.status ?? -1)")
            }
        }
    }

    /// Keeps the mutant and what it broke, where QCOW2_ATTACK_FINDINGS says.
    func keep(seed: UInt64) throws {
        guard let kept = ProcessInfo.processInfo.environment["QCOW2_ATTACK_FINDINGS"], !violations.isEmpty else {
            return
        }
        try FileManager.default.createDirectory(atPath: kept, withIntermediateDirectories: true)
        try mutant.write(to: "\(kept)/attack-\(seed).qcow2")
        let lines = violations.map { "attack-\(seed).qcow2: \($0)\n" }.joined() + "    \(mutant.story)\n"
        let file = open("\(kept)/attacks.txt", O_WRONLY | O_CREAT | O_APPEND, 0o644)
        defer { close(file) }
        _ = lines.withCString { Glibc.write(file, $0, strlen($0)) }
    }
}
