// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// The command as a user without any rights.
enum Unprivileged {
    static let script: String? =
        geteuid() == 0 ? #"exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@""# : nil

    static let isPossible = script == nil || (try? Command.run(["--version"], via: script).status) == 0
}

/// What a user without permission gets; root drops its rights first.
@Suite(.enabled(if: Unprivileged.isPossible, "needs a user other than root, or setpriv and a readable build"))
struct PermissionTests {
    /// Sets a mode, and gives the file to whom the command will run as.
    private func restrict(_ path: String, _ mode: mode_t) throws {
        if geteuid() == 0 { try #require(chown(path, 65534, 65534) == 0) }
        try #require(chmod(path, mode) == 0)
    }

    @Test("A read-only image is listed, and refused to everybody who writes")
    func readOnlyFile() throws {
        let image = try TestImage()
        try restrict(image.path, 0o444)
        #expect(try image.run(["list"], via: Unprivileged.script).status == 0)
        #expect(try image.run(["delete", "--all", "--dry-run"], via: Unprivileged.script).status == 0)
        for words in writingVerbs {
            try image.expectRefusal(
                words, status: 1, saying: "Permission denied", "check the permissions", via: Unprivileged.script)
        }
    }

    @Test("An image in a read-only directory is listed, and can be written: nothing is created beside it")
    func readOnlyDirectory() throws {
        let image = try TestImage()
        try restrict(image.path, 0o644)
        try restrict(image.folder.path, 0o555)
        defer { _ = chmod(image.folder.path, 0o755) }
        #expect(try image.run(["list"], via: Unprivileged.script).status == 0)
        #expect(try image.run(["create", "new"], via: Unprivileged.script).status == 0)
        #expect(try image.run(["delete", "--all"], via: Unprivileged.script).status == 0)
    }

    @Test("An unreadable image and one in an unreachable directory are refused", arguments: [true, false])
    func unreadable(_ isDirectory: Bool) throws {
        let image = try TestImage()
        try restrict(isDirectory ? image.folder.path : image.path, 0)
        defer { _ = chmod(image.folder.path, 0o755) }
        for words in writingVerbs + [["list"]] {
            let result = try image.run(words, via: Unprivileged.script)
            #expect(result.status == 1)
            #expect(result.errors.hasPrefix("qsnap: Opening '\(image.path)' failed: Permission denied; check the perm"))
        }
    }
}
