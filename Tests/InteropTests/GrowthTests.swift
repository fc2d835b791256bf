// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Images whose refcount table becomes too short while we work on them.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct GrowthTests {
    static let layouts = [
        Layout(version: 2, clusterSize: 512), Layout(clusterSize: 512, refcountBits: 32),
        Layout(clusterSize: 512, refcountBits: 64), Layout(clusterSize: 1024, refcountBits: 64),
    ]

    /// How many clusters of the file the first cluster of the refcount table can describe, more or less.
    static let distances = [-24, -12, -6, -4, -3, -2, -1, 0, 1]

    @Test("Refcount blocks and the refcount table grow in the same commit", arguments: layouts, distances)
    func growth(_ layout: Layout, _ distance: Int) throws {
        let unit = layout.clusterSize
        let described = unit / 8 * (unit * 8 / layout.refcountBits)
        // Data, its L2 tables and refcount blocks, the L1 table, header and table: full, but for the distance.
        let overhead = described / (unit / 8) + unit / 8 + 10
        var disk = try TestDisk(layout, byteCount: (described - overhead + 4 * distance) * unit)
        try disk.write([.pattern(0x11, at: 0, count: disk.active.count)])
        let before = try tableClusterCount(disk)
        // Each copies all L2 tables, after a guest write has made them the active state's own.
        for number in 1...3 {
            try disk.write([.pattern(UInt8(number), at: 4096 * number, count: 200 * unit)])
            var image = try Image.open(disk.path, for: .writing)
            try image.createSnapshot(named: "s\(number)")
            _ = image.close()
            disk.created("s\(number)")
            try disk.verifyClean("create \(number)")
        }
        #expect(try tableClusterCount(disk) > before)
        try disk.verify("growth")
        var image = try Image.open(disk.path, for: .writing)
        try image.applySnapshot(.name("s1"))
        try image.deleteSnapshots([.name("s1"), .name("s3")])
        _ = image.close()
        disk.applied("s1")
        disk.deleted("s1")
        disk.deleted("s3")
        try disk.verify("apply and delete after growth")
    }

    private func tableClusterCount(_ disk: TestDisk) throws -> UInt64 {
        let image = try Image.open(disk.path, for: .reading)
        return try #require(image.annotatedHeader().first { $0.name == "refcount_table_clusters" }?.value)
    }
}
