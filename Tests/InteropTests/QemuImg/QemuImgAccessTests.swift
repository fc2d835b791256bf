// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import TestTools
import Testing

/// Files that may not be read or written.
@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"))
struct QemuImgAccessTests {
    private func lines(_ files: [String]) -> [Invocation] {
        var lines: [[String]] = []
        for file in files {
            for action in [["-l"], ["-lU"], ["-c", "x"], ["-a", "first"], ["-d", "first"], ["-d", "nosuch"], []] {
                lines.append(["snapshot"] + action + [file])
            }
            for options in [[], ["--output=json"], ["-U"]] {
                for command in ["info", "check", "map"] { lines.append([command] + options + [file]) }
            }
            for scope in ["leaks", "all"] { lines.append(["check", "-r", scope, file]) }
            lines += [
                ["resize", file, "+1M"], ["compare", file, file], ["compare", file, "open.qcow2"],
                ["create", "-f", "qcow2", file, "1M"], ["convert", file, "new.raw"],
                ["convert", "-O", "qcow2", file, "new.qcow2"], ["convert", "-O", "qcow2", "open.qcow2", file],
                ["convert", "-n", "-O", "qcow2", "open.qcow2", file], ["convert", "open.qcow2", file],
            ]
        }
        return lines.map { Invocation($0.map { Array($0.utf8) }) }
    }

    @Test(
        "A user without permission is refused in the same words",
        .enabled(if: Surroundings.unprivileged.areAvailable, "needs root and setpriv"))
    func permissions() throws {
        let comparison = try Comparison()
        try comparison.prepare("mkdir", "closed")
        for name in ["open", "secret", "closed/inside"] {
            try comparison.add("\(name).qcow2", Fixtures.bytes("v3-512.qcow2"))
        }
        try comparison.add("text.img", Array("text".utf8))
        try comparison.prepare("chmod", ["0444", "open.qcow2", "text.img"])
        try comparison.prepare("chmod", ["0000", "secret.qcow2", "closed"])
        try comparison.run(
            lines(["open.qcow2", "secret.qcow2", "closed/inside.qcow2", "text.img"]), in: .unprivileged,
            then: .untouched)
    }

    @Test(
        "Nothing is written to a read-only file system, in the same words",
        .enabled(if: Surroundings.readOnly.areAvailable, "needs root and mount namespaces"))
    func readOnly() throws {
        let comparison = try Comparison()
        try comparison.addGolden("v3-512")
        try comparison.add("open.qcow2", Fixtures.bytes("v3-4k.qcow2"))
        try comparison.add("text.img", Array("text".utf8))
        try comparison.run(lines(["v3-512.qcow2", "text.img", "missing.qcow2"]), in: .readOnly, then: .untouched)
    }
}
