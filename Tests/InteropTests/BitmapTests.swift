// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Images with dirty bitmaps, whose clusters count and whose promise must never be broken silently.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct BitmapTests {
    static let layouts = [512, 4096, 65536].flatMap { clusterSize in
        [8, 16, 64].map { Layout(clusterSize: clusterSize, refcountBits: $0, features: [.bitmaps]) }
    }

    @Test(
        "Bitmaps stay valid through create, rename and delete; apply is refused, or gives them up", arguments: layouts)
    func bitmaps(_ layout: Layout) throws {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: 40 * unit)
        // Stored with bits in it, so that it has data clusters.
        try disk.write([.pattern(0x11, at: 0, count: 3 * unit)])
        try create("first", &disk)
        try disk.write([.pattern(0x22, at: unit, count: unit)])
        try create("second", &disk)
        try update(&disk) { image throws(QCOW2Error) in
            try image.renameSnapshot(.name("second"), to: "other")
            try image.deleteSnapshots([.name("other")])
        }
        disk.deleted("second")
        try disk.verify("verbs beside bitmaps")
        #expect(try flags(of: disk) == ["auto"])

        #expect(try Tool.run("qemu-img", ["snapshot", "-a", "first", disk.path]).status != 0)
        let before = try Data(contentsOf: URL(fileURLWithPath: disk.path))
        let error = #expect(throws: QCOW2Error.self) {
            try update(&disk) { image throws(QCOW2Error) in try image.applySnapshot(.name("first")) }
        }
        #expect(error?.code == .activeBitmaps)
        #expect(try Data(contentsOf: URL(fileURLWithPath: disk.path)) == before)

        try update(&disk) { image throws(QCOW2Error) in
            try image.applySnapshot(.name("first"), bitmaps: .drop)
            #expect(!image.autoclearFeatures.contains(.bitmaps))
        }
        disk.applied("first")
        try disk.verify("apply that gives bitmaps up")
        // The next writer removes what is left of them, and finds no cluster leaked.
        try disk.write([.pattern(0x33, at: 0, count: unit)])
        try disk.verify("guest write without bitmaps")
        #expect(try flags(of: disk) == nil)
    }

    private func create(_ name: String, _ disk: inout TestDisk) throws {
        try update(&disk) { image throws(QCOW2Error) in try image.createSnapshot(named: name) }
        disk.created(name)
        try disk.verify("create beside bitmaps")
    }

    private func update<Result>(
        _ disk: inout TestDisk, _ body: (inout Image<FileStorage>) throws(QCOW2Error) -> Result
    ) throws {
        var image = try Image.open(disk.path, for: .writing)
        _ = try body(&image)
    }

    /// The flags of the image's first bitmap, as qemu-img sees them.
    private func flags(of disk: TestDisk) throws -> [String]? {
        let text = try Tool.check("qemu-img", ["info", "--output=json", disk.path])
        let info = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let specific = (info?["format-specific"] as? [String: Any])?["data"] as? [String: Any]
        return (specific?["bitmaps"] as? [[String: Any]])?.first?["flags"] as? [String]
    }
}
