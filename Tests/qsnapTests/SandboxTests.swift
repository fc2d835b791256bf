// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

// Debug builds can be asked to try, from inside, what the sandbox forbids.
#if DEBUG && os(Linux)
    /// Commands that only read shut themselves in once their files are open.
    @Suite struct SandboxTests {
        /// A way of every command that only reads.
        static let commands = readingCommands.filter { !$0.contains("first") || $0[0] != "delete" }.filter {
            $0[0] != "delete"
        }

        private func run(_ words: [String], on image: TestImage) throws -> Tool.Result {
            try image.run(
                words,
                environment: [
                    "TZ": "UTC", "QSNAP_SANDBOX_TEST": "1", "QSNAP_SANDBOX_TEST_FILE": image.folder.file("beside"),
                ])
        }

        /// What was tried, and whether it was refused.
        private func attempts(_ result: Tool.Result) -> [String: String] {
            let lines = result.errors.split(separator: "\n").filter { $0.hasPrefix("sandbox: ") }
            let pairs = lines.map { $0.dropFirst(9).split(separator: ":", maxSplits: 1) }
            return Dictionary(
                pairs.map { (String($0[0]), $0[1].trimmingCharacters(in: .whitespaces)) }, uniquingKeysWith: { $1 })
        }

        @Test("Opening, starting programs, connecting and changing files are refused from inside", arguments: commands)
        func refused(_ words: [String]) throws {
            let image = try TestImage()
            try Data(count: 512).write(to: URL(fileURLWithPath: image.folder.file("beside")))
            let result = try run(words, on: image)
            #expect(result.status == 0 && !result.output.isEmpty, "\(result.errors)")
            let attempts = attempts(result)
            #expect(attempts.count == 13 && attempts.values.allSatisfy { $0 == "refused" }, "\(attempts)")
            // The same comes out, but for what was tried.
            #expect(try image.run(words + ["--no-sandbox"]).output == result.output)
        }

        @Test(
            "With a backing file, its folder can be read, and nothing else",
            arguments: [["hash"], ["map"], ["export", "-"], ["diff", "--full", "--exact"]])
        func backing(_ words: [String]) throws {
            let image = try TestImage("v3-512-backing")
            for name in ["beside", "backing.raw"] {
                try Data(count: 12288).write(to: URL(fileURLWithPath: image.folder.file(name)))
            }
            let result = try run(words, on: image)
            #expect(result.status == 0, "\(result.errors)")
            var attempts = attempts(result)
            // Where the kernel has no Landlock, reading is all that is left, and -v says so.
            guard try !image.run(words + ["-v"]).errors.contains("Landlock") else { return }
            #expect(attempts.removeValue(forKey: "open FILE") == "allowed")
            #expect(attempts.count == 12 && attempts.values.allSatisfy { $0 == "refused" }, "\(attempts)")
        }

        @Test("Of many images, these can be read, and nothing else")
        func several() throws {
            let image = try TestImage()
            try Data(count: 512).write(to: URL(fileURLWithPath: image.folder.file("beside")))
            for count in [2, 70] {
                let result = try run(["list"] + [String](repeating: image.path, count: count - 1), on: image)
                #expect(result.status == 0, "\(result.errors)")
                #expect(result.output.components(separatedBy: "first").count == count + 1)
                guard try !image.run(["list", "-v"]).errors.contains("Landlock") else { return }
                #expect(attempts(result).values.allSatisfy { $0 == "refused" })
            }
        }

        @Test("Without a sandbox, and where a file is written, nothing is given up")
        func outside() throws {
            let image = try TestImage()
            for words in [
                ["list", "--no-sandbox"], ["export", image.folder.file("raw")], ["create", "new"],
                ["diff", "first", "--export-rbd", image.folder.file("rbd")],
            ] {
                let result = try run(words, on: image)
                #expect(result.status == 0 && attempts(result).isEmpty, "\(result.errors)")
            }
        }

        @Test(
            "Where the kernel refuses, the command runs, and says so when asked",
            .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"),
            arguments: [
                ("prctl:error=EINVAL", "list", "no sandbox"),
                ("prctl:error=EINVAL:when=2", "list", "no seccomp filter"),
                ("landlock_create_ruleset:error=ENOSYS", "hash", "no Landlock"),
            ])
        func withoutKernel(_ fault: String, _ verb: String, _ sentence: String) throws {
            let image = try TestImage("v3-512-backing")
            try Data(count: 12288).write(to: URL(fileURLWithPath: image.folder.file("backing.raw")))
            let log = image.folder.file("log")
            let script = #"exec strace -f -o '\#(log)' -e trace=prctl,444 -e inject=\#(fault) "$@""#
            let quiet = try image.run([verb], via: script)
            #expect(quiet.status == 0 && quiet.errors.isEmpty, "\(quiet.errors)")
            let result = try image.run([verb, "-v"], via: script)
            #expect(result.status == 0 && result.errors.contains(sentence), "\(result.errors)")
            #expect(result.output == quiet.output)
        }
    }
#endif
