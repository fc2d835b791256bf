// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// The real command under a tracer that makes its system calls fail.
enum Tracer {
    /// Whether there is one that may trace.
    static let isUsable: Bool = {
        guard Tool.isInstalled("strace") else { return false }
        return (try? Tool.run("strace", ["-o", "/dev/null", "-e", "trace=none", "true"]))?.status == 0
    }()

    /// A script for ``Command`` in which system calls go wrong, such as `fcntl:error=EINVAL`.
    static func script(_ injections: String..., log: String = "/dev/null") -> String { script(injections, log: log) }

    static func script(_ injections: [String], log: String = "/dev/null") -> String {
        #"exec strace -f -o '\#(log)' -e trace=\#(calls) \#(injections.map { "-e inject=\($0)" }.joined(separator: " ")) "#
            + #""$@""#
    }

    private static let calls = "fcntl,flock,pread64,pwrite64,fdatasync,fsync,ftruncate,fallocate,link,rename"
}

@Suite struct VerboseTests {
    @Test("A verbose command says in one sentence how others are kept out", arguments: ["-v", "--verbose"])
    func locked(_ flag: String) throws {
        for words in [["list"], ["list", "--json"], ["delete", "--all", "--dry-run"]] + writingVerbs {
            let image = try TestImage()
            let result = try image.run(words + [flag])
            #expect(result.status == 0 && !result.output.isEmpty)
            #expect(result.errors == "qsnap: '\(image.path)' is locked against other programs, QEMU's included.\n")
        }
        let image = try TestImage()
        let shared = try image.run(["list", "-U", flag])
        #expect(shared.errors == "qsnap: '\(image.path)' is not locked; other programs may write to it meanwhile.\n")
    }

    @Test(
        "Without QEMU's locks nothing is written, and reading says so when asked",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"),
        arguments: ["EINVAL", "ENOLCK", "EOPNOTSUPP"])
    func refused(_ error: String) throws {
        for whole in [[], ["flock:error=\(error)"]] {
            let script = Tracer.script(["fcntl:error=\(error)"] + whole)
            let image = try TestImage()
            for words in writingVerbs + [["check", "--repair", "all"]] {
                try image.expectRefusal(words, status: 6, saying: "can't be locked", "--no-lock", via: script)
            }
            let result = try image.run(["list", "--verbose"], via: script)
            #expect(result.status == 0 && result.errors.contains(whole.isEmpty ? "has none of the locks" : "no locks"))
            // Not a word without being asked.
            #expect(try image.run(["list"], via: script).errors.isEmpty)
            // In QEMU's words.
            let drop = try Command.run(["qemu-img", "snapshot", "-c", "new", image.path], via: script)
            #expect(drop.status == 1 && drop.errors.contains("Failed to lock byte 100: "), "\(drop.errors)")
        }
    }

    @Test(
        "Without QEMU's locks --no-lock writes, says so, and keeps others of its kind out",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"))
    func advisory() throws {
        let script = Tracer.script("fcntl:error=ENOLCK")
        for words in writingVerbs {
            let image = try TestImage()
            let result = try image.run(words + ["--no-lock", "--verbose"], via: script)
            #expect(result.status == 0)
            #expect(
                result.errors == "qsnap: '\(image.path)' is locked against other qsnap commands only: its file system "
                    + "has none of the locks that QEMU uses.\n")
        }
        let image = try TestImage()
        #expect(try image.run(["check", "--repair", "all", "--no-lock"], via: script).status == 0)
        let descriptor = open(image.path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(flock(descriptor, LOCK_SH | LOCK_NB) == 0)
        #expect(try image.run(["list"], via: script).status == 0)
        for words in writingVerbs {
            try image.expectRefusal(words + ["--no-lock"], status: 5, saying: "in use by", via: script)
        }
        try #require(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        #expect(try image.run(["list"], via: script).status == 5)
    }

    @Test(
        "Without any locks --no-lock writes and says so; where there are locks it respects them",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"))
    func unavailable() throws {
        let image = try TestImage()
        let result = try image.run(
            ["create", "new", "-v", "--no-lock"], via: Tracer.script("fcntl:error=ENOLCK", "flock:error=ENOLCK"))
        #expect(result.status == 0)
        #expect(
            result.errors == "qsnap: '\(image.path)' is not locked: its file system has no locks; let no other program "
                + "use it meanwhile.\n")
        let reader = try FileStorage(path: image.path, for: .reading)
        try image.expectRefusal(["create", "other", "--no-lock"], status: 5, saying: "in use by")
        _ = consume reader
    }
}
