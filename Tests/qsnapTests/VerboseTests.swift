// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
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
    static func script(_ injections: String..., log: String = "/dev/null") -> String {
        #"exec strace -f -o '\#(log)' -e trace=\#(calls) \#(injections.map { "-e inject=\($0)" }.joined(separator: " ")) "#
            + #""$@""#
    }

    private static let calls = "fcntl,flock,pread64,pwrite64,fdatasync,ftruncate,fallocate"
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
        "Without QEMU's locks the command works, says so, and keeps others of its kind out",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"),
        arguments: ["EINVAL", "ENOLCK", "EOPNOTSUPP"])
    func advisory(_ error: String) throws {
        let script = Tracer.script("fcntl:error=\(error)")
        for words in writingVerbs + [["list"]] {
            let image = try TestImage()
            let result = try image.run(words + ["--verbose"], via: script)
            #expect(result.status == 0)
            #expect(
                result.errors == "qsnap: '\(image.path)' is locked against other qsnap commands only: its file system "
                    + "has none of the locks that QEMU uses.\n")
            // Not a word without being asked.
            #expect(try image.run(["list"], via: script).errors.isEmpty)
        }
        let image = try TestImage()
        let descriptor = open(image.path, O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        try #require(flock(descriptor, LOCK_SH | LOCK_NB) == 0)
        #expect(try image.run(["list"], via: script).status == 0)
        for words in writingVerbs { try image.expectRefusal(words, status: 5, saying: "in use by", via: script) }
        try #require(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        #expect(try image.run(["list"], via: script).status == 5)
    }

    @Test(
        "Without any locks the command works and says so",
        .enabled(if: Tracer.isUsable, "needs strace, and the right to trace"))
    func unavailable() throws {
        let image = try TestImage()
        let result = try image.run(
            ["create", "new", "-v"], via: Tracer.script("fcntl:error=ENOLCK", "flock:error=ENOLCK"))
        #expect(result.status == 0)
        #expect(
            result.errors == "qsnap: '\(image.path)' is not locked: its file system has no locks; let no other program "
                + "use it meanwhile.\n")
    }
}
