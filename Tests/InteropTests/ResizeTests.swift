// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Snapshots of disks that had another size.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct ResizeTests {
    static let layouts = [512, 4096, 65536].flatMap { clusterSize in
        [
            Layout(clusterSize: clusterSize), Layout(clusterSize: clusterSize, refcountBits: 64),
            Layout(clusterSize: clusterSize, features: clusterSize == 65536 ? [.extendedL2] : [.zstd]),
        ]
    }

    @Test("Apply restores the size that the disk had", arguments: layouts)
    func sizes(_ layout: Layout) throws {
        let unit = layout.clusterSize
        // With small clusters, the sizes need L1 tables of different lengths.
        let largest = unit == 65536 ? 110 : 700
        var disk = try TestDisk(layout, byteCount: 100 * unit)
        try disk.write([.pattern(0x11, at: 0, count: unit), .pattern(0x12, at: 99 * unit, count: unit)])
        try update(&disk) { image throws(QCOW2Error) in try image.createSnapshot(named: "middle") }
        disk.created("middle")
        try disk.resize(to: largest * unit)
        try disk.write([.pattern(0x21, at: (largest - 1) * unit, count: unit)])
        try update(&disk) { image throws(QCOW2Error) in try image.createSnapshot(named: "large") }
        disk.created("large")
        try disk.resize(to: 10 * unit + 512)
        try disk.write([.pattern(0x31, at: 10 * unit, count: 512)])
        try Tool.check("qemu-img", ["snapshot", "-c", "small", disk.path])
        disk.created("small")
        try look(at: disk, "all sizes")

        for (name, saved) in [("large", "one"), ("middle", "two"), ("small", "three"), ("large", nil), ("two", nil)] {
            try update(&disk) { image throws(QCOW2Error) in
                try image.applySnapshot(.name(name), savingCurrentAs: saved)
            }
            if let saved { disk.created(saved) }
            disk.applied(name)
            try look(at: disk, "apply \(name)")
            try disk.write([.pattern(UInt8(saved?.count ?? 9), at: disk.active.count - 512, count: 512)])
            try look(at: disk, "guest write after apply \(name)")
        }
        try Tool.check("qemu-img", ["snapshot", "-a", "small", disk.path])
        disk.applied("small")
        try look(at: disk, "their apply")
        try update(&disk) { image throws(QCOW2Error) in
            try image.deleteSnapshots(["large", "one", "three", "two"].map { .name($0) })
        }
        for name in ["large", "one", "three", "two"] { disk.deleted(name) }
        try look(at: disk, "delete")
    }

    private func look(at disk: TestDisk, _ step: String) throws {
        try disk.verify(step)
        try disk.verifyStates(step)
    }

    private func update<Result>(
        _ disk: inout TestDisk, _ body: (inout Image<FileStorage>) throws(QCOW2Error) -> Result
    ) throws {
        var image = try Image.open(disk.path, for: .writing)
        _ = try body(&image)
    }
}
