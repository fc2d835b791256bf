// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import TestTools
import Testing

/// Scripts as they are out there run unchanged through the link.
@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"))
struct QemuImgScriptTests {
    /// Runs a script with one of the two programs first in the path.
    private func run(_ script: String, _ arguments: [String], ours: Bool) throws -> Tool.Result {
        let tools = try TemporaryFolder()
        var path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        if ours {
            _ = try Program.ours(in: tools)
            path = tools.path + ":" + path
        }
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(script).path
        return try withExtendedLifetime(tools) {
            try Tool.run("sh", [file] + arguments, environment: ["PATH": path, "TZ": "UTC", "LC_ALL": "C"])
        }
    }

    @Test("A script that creates a snapshot unless the list shows it, and deletes old ones")
    func snapshotIfMissing() throws {
        var outputs: [[String]] = []
        for ours in [false, true] {
            let folder = try TemporaryFolder()
            let image = folder.file("disk.qcow2")
            try Data(Fixtures.bytes("v3-4k.qcow2")).write(to: URL(fileURLWithPath: image))
            var lines: [String] = []
            for name in ["mon", "mon", "tue", "wed", "wed", "thu", "fri", "fri"] {
                let result = try run("snapshot-if-missing.sh", [image, name], ours: ours)
                #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
                lines.append(result.output)
            }
            try Tool.check("qemu-img", ["check", image])
            outputs.append(lines)
        }
        #expect(outputs[0] == outputs[1])
        #expect(outputs[1].last == "4 wed\n5 thu\n6 fri\n")
    }

    @Test("A script that loops over info --output=json")
    func inventory() throws {
        let folder = try TemporaryFolder()
        for name in goldenImages + ["demo", "v3-512-backing"] {
            try Data(Fixtures.bytes("\(name).qcow2")).write(to: URL(fileURLWithPath: folder.file("\(name).qcow2")))
        }
        let results = try [false, true].map { try run("sizes-of-all.sh", [folder.path], ours: $0) }
        #expect(results[0].output == results[1].output)
        #expect(results[1].status == 0 && results[1].output.contains("v3-512.qcow2 qcow2 "), "\(results[1].errors)")
    }
}
