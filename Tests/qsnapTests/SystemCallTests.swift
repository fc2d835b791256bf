// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// The real command, stopped or failed at each of the system calls by which it changes the file.
@Suite(.enabled(if: Tracer.isUsable && Tool.isInstalled("bash"), "needs strace, the right to trace, and bash"))
struct SystemCallTests {
    /// The calls that change the file, in order.
    private func changes(_ words: [String]) throws -> [String] {
        let image = try TestImage()
        let log = image.folder.file("log")
        #expect(try image.run(words, via: Tracer.script("fcntl:retval=0:when=65535", log: log)).status == 0)
        return try trace(log).filter { $0 != "pread64" && $0 != "fcntl" && $0 != "flock" }
    }

    /// The names of the calls in a log.
    private func trace(_ path: String) throws -> [String] {
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").compactMap { line in
            let words = line.drop { $0.isNumber || $0 == " " }
            guard let end = words.firstIndex(of: "(") else { return nil }
            let name = String(words[..<end])
            return ["pread64", "pwrite64", "fdatasync", "ftruncate", "fallocate"].contains(name) ? name : nil
        }
    }

    @Test("Killed at any call that changes the file, it leaves the old image or the new one", arguments: writingVerbs)
    func kill(_ words: [String]) throws {
        let image = try TestImage()
        let old = try Contents(of: image.bytes)
        var numbers: [String: Int] = [:]
        let calls = try changes(words)
        #expect(calls.contains("pwrite64") && calls.count { $0 == "fdatasync" } == 2)
        for call in calls {
            let number = numbers[call, default: 0] + 1
            numbers[call] = number
            let image = try TestImage()
            let result = try image.run(words, via: Tracer.script("\(call):signal=SIGKILL:when=\(number)"))
            #expect(result.wasKilled || result.status == 137)
            let contents = try Contents(of: image.bytes)
            // Before the first flush nothing is new; after the second one, everything is.
            if (numbers["fdatasync"] ?? 0) == 0 { #expect(contents == old, "\(call) \(number)") }
            if numbers["fdatasync"] == 2, call != "fdatasync" { #expect(contents != old, "\(call) \(number)") }
            if Tool.isInstalled("qemu-img") {
                let check = try Tool.run("qemu-img", ["check", image.path])
                #expect(check.status == 0, "\(call) \(number): \(check.output)")
            }
            TestTally.add(1, to: words.joined(separator: " "), of: "kills at a system call")
        }
    }

    @Test(
        "Failing at any call before the end, it says which and leaves every byte", arguments: writingVerbs,
        ["EIO", "ENOSPC"])
    func fail(_ words: [String], _ error: String) throws {
        let names = [
            "pwrite64": "Writing", "fdatasync": "Flushing", "ftruncate": "Changing the length of",
        ]
        var numbers: [String: Int] = [:]
        for call in try changes(words) where call != "fallocate" {
            let number = numbers[call, default: 0] + 1
            numbers[call] = number
            let image = try TestImage()
            let original = try image.bytes
            let result = try image.run(words, via: Tracer.script("\(call):error=\(error):when=\(number)"))
            if call == "ftruncate" {
                // Giving back the file's free end comes when all is done.
                #expect(result.status == 0)
            } else {
                let text = error == "EIO" ? "Input/output error" : "No space left on device"
                expectOneSentence(result, status: 1, naming: image.path, [names[call] ?? "", text])
                #expect(try image.bytes == original)
            }
            TestTally.add(1, to: words.joined(separator: " "), of: "system calls of the command that failed")
        }
    }

    @Test(
        "SIGINT and SIGTERM while it reads: it drops the commit or ends it, and says which", arguments: writingVerbs,
        ["SIGINT", "SIGTERM"])
    func signal(_ words: [String], _ signal: String) throws {
        for number in [1, 2, 4, 8, 16, 32] {
            let image = try TestImage("v3-4k")
            let original = try image.bytes
            let log = image.folder.file("log")
            let result = try image.run(
                words, via: Tracer.script("pread64:signal=\(signal):when=\(number)", log: log))
            if result.wasKilled {
                // It had not begun to change anything, and did not yet listen.
                #expect(try image.bytes == original)
                continue
            }
            if result.status == 0 { continue }  // It reads less often than that.
            #expect(result.status == (signal == "SIGINT" ? 130 : 143), "\(result.errors)")
            let text = try String(contentsOfFile: log, encoding: .utf8)
            let rest = try #require(text.range(of: "--- \(signal)")).upperBound
            if result.errors.contains("is as it was") {
                #expect(try image.bytes == original)
                #expect(!text[rest...].contains("pwrite64(") && !text[rest...].contains("fallocate("))
            } else {
                #expect(result.errors.contains("it was done already"))
                #expect(try image.bytes != original)
            }
        }
    }
}
