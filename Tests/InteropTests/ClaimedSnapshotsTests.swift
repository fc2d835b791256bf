// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// A header that counts far more snapshots than there are, at the end of the file.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct ClaimedSnapshotsTests {
    @Test("What qemu-img opens before a repair, it opens after it", arguments: ["512", "4096", "65536"])
    func repaired(_ clusterSize: String) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("claims.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", path, "1M"])
        try Tool.check("qemu-io", ["-f", "qcow2", "-c", "write -P 7 0 64k", path])
        for name in ["first", "second"] { try Tool.check("qemu-img", ["snapshot", "-c", name, path]) }
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        // 56,971 snapshots, of which the file has two; and a refcount that is too low, so that there is work to do.
        bytes.replaceSubrange(60..<64, with: [0, 0, 0xDE, 0x8B])
        let block = Self.number(bytes, Self.number(bytes, 48))
        bytes.replaceSubrange((block + 2 * 5)..<(block + 2 * 5 + 2), with: [0, 0])
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let before = try Tool.run("qemu-img", ["info", path]).status
        var image = try SuspectImage.open(path, for: .writing)
        let report = try image.repair(.all)
        #expect(report.raisedRefcountCount > 0)
        _ = image.close()
        let after = try Tool.run("qemu-img", ["info", path])
        #expect(before == 0 && after.status == 0, "\(before), \(after.status): \(after.errors)")
    }

    private static func number(_ bytes: [UInt8], _ offset: Int) -> Int {
        bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) }
    }
}
