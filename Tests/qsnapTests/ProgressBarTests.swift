// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import TestTools
import Testing

@Suite(.enabled(if: Tool.isInstalled("script") && Tool.isInstalled("qemu-img"), "needs script and qemu-img"))
struct ProgressBarTests {
    /// Exports a disk to a pipe that nobody reads for longer than a second.
    private func export(via script: String) throws -> Tool.Result {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", path, "1G"])
        let result = try Command.run(["export", path], via: script)
        #expect(result.status == 0, "\(result.output)\(result.errors)")
        return result
    }

    @Test("On a terminal a bar shows how far a long operation is, and goes away in the end")
    func terminal() throws {
        let script = #"script -qec "'$1' export '$3' - | (sleep 1.2; cat >/dev/null)" /dev/null"#
        let output = try export(via: script).output
        let bars = output.split(separator: "\r").filter { $0.hasPrefix("[") }
        #expect(!bars.isEmpty && bars.allSatisfy { $0.hasSuffix(" %") && $0.contains("#") }, "\(output)")
        #expect(output.hasSuffix("\r\u{1B}[K"), "\(output)")
    }

    @Test("Elsewhere there is none")
    func noTerminal() throws {
        let result = try export(via: #""$1" export "$3" - | (sleep 1.2; cat >/dev/null)"#)
        #expect(result.output.isEmpty && result.errors.isEmpty)
    }
}
