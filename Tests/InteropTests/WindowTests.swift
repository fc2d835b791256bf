// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Images with more clusters than are counted at a time.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct WindowTests {
    static let layouts = [
        Layout(version: 2, clusterSize: 512), Layout(clusterSize: 512, refcountBits: 8),
        Layout(clusterSize: 512, refcountBits: 64), Layout(clusterSize: 512, features: [.preallocated]),
    ]

    @Test("How many clusters are counted at a time makes no difference to a byte", arguments: layouts)
    func windows(_ layout: Layout) throws {
        // Some 100,000 clusters: four windows of the smallest size.
        let unit = 64 * 512
        var disk = try TestDisk(layout, byteCount: 1400 * unit)
        var random = SplitMix64(seed: 7)
        // Written in random order, so that an L2 table's clusters are all over the file.
        let order = (0..<1400).shuffled(using: &random)
        for part in stride(from: 0, to: order.count, by: 200) {
            try disk.write(order[part..<(part + 200)].map { .pattern(UInt8($0 % 255 + 1), at: $0 * unit, count: unit) })
        }
        try verb("create", &disk) { image, options throws(QCOW2Error) in
            try image.createSnapshot(named: "first", date: Self.date, options: options)
        }
        disk.created("first")
        try disk.verifyClean("create")
        let rewritten = (0..<200).map { _ in Int.random(in: 0..<1400, using: &random) }
        try disk.write(rewritten.map { .pattern(0xEE, at: $0 * unit + 512, count: 9 * 512) })
        try verb("apply", &disk) { image, options throws(QCOW2Error) in
            try image.applySnapshot(.name("first"), savingCurrentAs: "second", date: Self.date, options: options)
        }
        disk.created("second")
        disk.applied("first")
        try disk.verifyClean("apply")
        try disk.write(rewritten.map { .pattern(0xDD, at: $0 * unit, count: unit) })
        try verb("delete", &disk) { image, options throws(QCOW2Error) in
            try image.deleteSnapshots([.name("first")], options: options)
        }
        disk.deleted("first")
        try disk.verifyClean("delete")
        try disk.verifyStates("windows")
    }

    private static let date = SnapshotDate(seconds: 1, nanoseconds: 2)

    /// Carries a verb out on a copy in small windows, and in one on the image itself.
    private func verb<Result>(
        _ name: String, _ disk: inout TestDisk,
        _ body: (inout Image<FileStorage>, WriteOptions) throws(QCOW2Error) -> Result
    ) throws {
        let copy = disk.folder.file("copy.qcow2")
        try? FileManager.default.removeItem(atPath: copy)
        try FileManager.default.copyItem(atPath: disk.path, toPath: copy)
        for (path, budget) in [(copy, 1), (disk.path, 64 << 20)] {
            var options = WriteOptions()
            options.memoryBudget = budget
            var image = try Image.open(path, for: .writing)
            _ = try body(&image, options)
        }
        let (whole, parts) = (
            try Data(contentsOf: URL(fileURLWithPath: disk.path)), try Data(contentsOf: URL(fileURLWithPath: copy))
        )
        #expect(whole == parts, "\(name), \(disk.layout.testDescription)")
    }
}
