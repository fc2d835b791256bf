// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import TestTools
import Testing

/// Every verb by us and by qemu-img in turn, on every kind of image.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct MatrixTests {
    static let layouts: [Layout] = {
        var layouts: [Layout] = []
        for clusterSize in [512, 1024, 4096, 65536, 2 << 20] {
            layouts.append(Layout(version: 2, clusterSize: clusterSize))
            for refcountBits in [2, 4, 8, 16, 32, 64] {
                layouts.append(Layout(clusterSize: clusterSize, refcountBits: refcountBits))
            }
        }
        for clusterSize in [16384, 65536, 2 << 20] {
            layouts.append(Layout(clusterSize: clusterSize, features: [.extendedL2]))
            layouts.append(Layout(clusterSize: clusterSize, refcountBits: 8, features: [.extendedL2, .zstd]))
            layouts.append(Layout(clusterSize: clusterSize, features: [.extendedL2, .backing]))
        }
        for clusterSize in [512, 4096, 65536] {
            layouts.append(Layout(version: 2, clusterSize: clusterSize, features: [.backing]))
            layouts.append(Layout(clusterSize: clusterSize, features: [.backing]))
            layouts.append(Layout(clusterSize: clusterSize, features: [.zstd]))
            layouts.append(Layout(clusterSize: clusterSize, features: [.preallocated]))
            layouts.append(Layout(clusterSize: clusterSize, features: [.luks]))
            layouts.append(Layout(clusterSize: clusterSize, refcountBits: 64, features: [.luks]))
        }
        layouts.append(Layout(features: [.aes]))
        layouts.append(Layout(version: 2, features: [.aes]))
        layouts.append(Layout(features: [.lazyRefcounts]))
        return layouts
    }()

    @Test("Snapshots by both sides in turn keep every state", arguments: layouts)
    func verbs(_ layout: Layout) throws {
        let unit = layout.clusterSize
        let count = unit > 65536 ? 3 : 24
        var disk = try TestDisk(layout, byteCount: unit * count)
        try disk.write(firstWrites(unit, layout))
        try create("ours-1", &disk)
        try disk.verify("our create")

        try disk.write([.pattern(0x21, at: unit / 2, count: unit), .zeros(at: 2 * unit, count: unit / 2)])
        try disk.verify("guest write after our create")
        if layout.refcountBits > 2 { try createByQEMU("theirs-1", &disk) }
        try disk.write([.pattern(0x31, at: unit, count: unit)])
        try disk.verify("guest write after their create")

        try update(&disk) { image throws(QCOW2Error) in _ = try image.applySnapshot(.name("ours-1")) }
        disk.applied("ours-1")
        try disk.verify("our apply")
        try disk.write([.pattern(0x41, at: 0, count: unit), .pattern(0x42, at: unit * (count - 1), count: unit)])
        try disk.verify("guest write after our apply")

        if layout.refcountBits > 2 {
            try Tool.check("qemu-img", ["snapshot", "-a", "theirs-1"] + disk.snapshotWords)
            disk.applied("theirs-1")
            try disk.verify("their apply")
            try update(&disk) { image throws(QCOW2Error) in
                _ = try image.applySnapshot(.name("ours-1"), savingCurrentAs: "saved")
            }
            disk.created("saved")
            disk.applied("ours-1")
            try disk.verify("our apply that saves")
        }
        try update(&disk) { image throws(QCOW2Error) in
            _ = try image.renameSnapshot(.name("ours-1"), to: "ours-renamed")
        }
        disk.renamed("ours-1", to: "ours-renamed")
        try disk.write([.pattern(0x51, at: unit, count: 2 * unit)])
        try disk.verify("our rename and a guest write")

        if layout.refcountBits > 2 {
            try Tool.check("qemu-img", ["snapshot", "-d", "ours-renamed"] + disk.snapshotWords)
            disk.deleted("ours-renamed")
            try disk.verify("their delete")
        }
        let names = Array(disk.snapshots.keys)
        try update(&disk) { image throws(QCOW2Error) in
            _ = try image.deleteSnapshots(names.map { .name($0) })
        }
        for name in names { disk.deleted(name) }
        try disk.verify("our delete of all")
        try disk.write([.pattern(0x61, at: 0, count: unit * count)])
        try disk.verify("guest write at the end")
    }

    private func firstWrites(_ unit: Int, _ layout: Layout) -> [TestDisk.GuestWrite] {
        var writes: [TestDisk.GuestWrite] = [
            .pattern(0x11, at: 0, count: unit), .pattern(0x12, at: unit, count: unit),
        ]
        if unit <= 65536 {
            writes += [
                .pattern(0x13, at: 5 * unit, count: 3 * unit), .zeros(at: 6 * unit, count: unit),
                .unmappedZeros(at: 9 * unit, count: unit), .discard(at: 7 * unit, count: unit),
            ]
            if !layout.isEncrypted, !layout.features.contains(.preallocated), layout.refcountBits > 2 {
                // Several in one host cluster, each counted: few enough for narrow refcounts.
                writes += (12..<(layout.refcountBits > 4 ? 18 : 14)).map {
                    .compressed(UInt8($0), at: $0 * unit, count: unit)
                }
            }
        }
        return writes
    }

    private func create(_ name: String, _ disk: inout TestDisk) throws {
        try update(&disk) { image throws(QCOW2Error) in _ = try image.createSnapshot(named: name) }
        disk.created(name)
    }

    private func createByQEMU(_ name: String, _ disk: inout TestDisk) throws {
        try Tool.check("qemu-img", ["snapshot", "-c", name] + disk.snapshotWords)
        disk.created(name)
        try disk.verify("their create")
    }

    private func update(
        _ disk: inout TestDisk, _ body: (inout Image<FileStorage>) throws(QCOW2Error) -> Void
    ) throws {
        var image = try Image.open(disk.path, for: .writing)
        try body(&image)
    }
}
