// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Our check beside the real one, on every kind of image; and repairs of images broken on purpose.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct CheckInteropTests {
    static let layouts: [Layout] = [
        Layout(version: 2, clusterSize: 512), Layout(version: 2), Layout(clusterSize: 512, refcountBits: 64),
        Layout(clusterSize: 4096, refcountBits: 4), Layout(clusterSize: 4096, features: [.zstd]),
        Layout(clusterSize: 4096, refcountBits: 2), Layout(refcountBits: 8), Layout(refcountBits: 32),
        Layout(clusterSize: 2 << 20), Layout(clusterSize: 16384, features: [.extendedL2]),
        Layout(features: [.extendedL2, .backing]), Layout(features: [.bitmaps]), Layout(features: [.luks]),
        Layout(features: [.lazyRefcounts]), Layout(clusterSize: 512, features: [.preallocated]),
    ]

    /// An image with a snapshot, and data of all kinds in both states.
    private func disk(_ layout: Layout) throws -> TestDisk {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: unit * (unit > 65536 ? 3 : 24))
        try disk.write([.pattern(0x11, at: 0, count: 2 * unit)])
        if unit <= 65536 {
            try disk.write([.pattern(0x13, at: 5 * unit, count: 3 * unit), .zeros(at: 6 * unit, count: unit)])
            if !layout.isEncrypted, !layout.features.contains(.preallocated) {
                // With the snapshot's, 2-bit refcounts can't count those of two compressed clusters in one.
                try disk.write(
                    (12..<(layout.refcountBits > 2 ? 14 : 13)).map {
                        .compressed(UInt8($0), at: $0 * unit, count: unit)
                    })
            }
        }
        var image = try Image.open(disk.path, for: .writing)
        try image.createSnapshot(named: "first")
        _ = image.close()
        disk.created("first")
        try disk.write([.pattern(0x21, at: unit / 2, count: unit)])
        return disk
    }

    /// What `qemu-img check` says in numbers.
    private func theirs(_ disk: TestDisk) throws -> [String: Any] {
        let words = ["check", "--output=json"] + (disk.layout.isEncrypted ? disk.snapshotWords : [disk.path])
        let output = try Tool.run("qemu-img", words).output
        // Encrypted images need their options, which `check` takes in the same form.
        return try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    }

    @Test("Verdict and statistics are those of qemu-img", arguments: layouts)
    func statistics(_ layout: Layout) throws {
        let disk = try disk(layout)
        let image = try Image.open(disk.path, for: .reading)
        var options = CheckOptions()
        options.decodesCompressedClusters = !layout.isEncrypted
        let report = try image.check(options)
        #expect(report.tallies.isEmpty, "\(report.tallies)")
        let theirs = try theirs(disk)
        func number(_ key: String) -> UInt64 { (theirs[key] as? UInt64) ?? 0 }
        #expect(report.totalClusterCount == number("total-clusters"))
        #expect(report.allocatedClusterCount == number("allocated-clusters"))
        #expect(report.fragmentedClusterCount == number("fragmented-clusters"))
        #expect(report.compressedClusterCount == number("compressed-clusters"))
        #expect(report.imageEndOffset.rawValue == number("image-end-offset"))
    }

    /// What to do to an image before it is repaired.
    enum Damage: String, CaseIterable, CustomTestStringConvertible {
        case refcountsZeroed, refcountsHigh, flagsFlipped, refcountTableEntryCut, dirty
        var testDescription: String { rawValue }
    }

    @Test("A damaged image is repaired: clean for both, every state right", arguments: layouts, Damage.allCases)
    func repair(_ layout: Layout, _ damage: Damage) throws {
        let disk = try disk(layout)
        guard try apply(damage, disk) else { return }
        var image = try SuspectImage.open(disk.path, for: .writing)
        let report = try image.repair(.all)
        #expect(report.hasChanges)
        #expect(report.after?.tallies.isEmpty == true, "\(report.after?.tallies ?? [])")
        _ = image.close()
        try disk.verify("repaired after \(damage)")
    }

    /// Damages the image; returns false where the layout has nothing to damage.
    private func apply(_ damage: Damage, _ disk: TestDisk) throws -> Bool {
        let handle = try FileHandle(forUpdating: URL(fileURLWithPath: disk.path))
        defer { try? handle.close() }
        func read(_ offset: UInt64, _ count: Int) throws -> UInt64 {
            try handle.seek(toOffset: offset)
            return (try handle.read(upToCount: count) ?? Data()).reduce(0) { $0 << 8 | UInt64($1) }
        }
        func write(_ bytes: [UInt8], _ offset: UInt64) throws {
            try handle.seek(toOffset: offset)
            try handle.write(contentsOf: Data(bytes))
        }
        func write(_ value: UInt64, _ offset: UInt64) throws {
            try write((0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) }, offset)
        }
        let table = try read(48, 8)
        let block = try read(table, 8)
        let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
        switch damage {
        case .refcountsZeroed: try write([UInt8](repeating: 0, count: 8), block)
        case .refcountsHigh:
            // Every cluster of the first ones counts as much as can be.
            try write([UInt8](repeating: 0xFF, count: 8), block)
        case .flagsFlipped:
            let l1Table = try read(40, 8)
            let entry = try read(l1Table, 8)
            try write(entry ^ 1 << 63, l1Table)
            let l2Table = entry & offsetMask
            for index in 0..<UInt64(3) {
                let place = l2Table + index * (disk.layout.features.contains(.extendedL2) ? 16 : 8)
                let entry = try read(place, 8)
                if entry & offsetMask != 0, entry >> 62 & 1 == 0 { try write(entry ^ 1 << 63, place) }
            }
        case .refcountTableEntryCut: try write(0, table)
        case .dirty:
            guard disk.layout.version == 3 else { return false }
            try write(try read(72, 8) | 3, 72)
        }
        return true
    }
}
