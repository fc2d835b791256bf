// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Usage of real images, against counting in sets, and against what deleting frees, by us and by qemu-img.
///
/// `QCOW2_USAGE_SEQUENCES` says how many random sequences, `QCOW2_SEED` with which seed they start.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct UsageTests {
    static let seeds: Range<UInt64> = {
        let first = SequenceTests.setting("QCOW2_SEED", 1)
        return first..<(first + SequenceTests.setting("QCOW2_USAGE_SEQUENCES", 20))
    }()

    @Test("Usage and forecasts are exact after random sequences", arguments: seeds)
    func sequence(_ seed: UInt64) throws {
        // Other sequences than those of the verbs' tests.
        var sequence = try RandomSequence(seed: seed ^ 0xFEED_0000)
        do {
            for _ in 0..<8 { try sequence.step() }
            try Self.verify(sequence.disk, sequence.story)
        } catch {
            Issue.record(error, "\(sequence.story)")
        }
    }

    static let layouts =
        MatrixTests.layouts.filter { [512, 65536].contains($0.clusterSize) && $0.refcountBits == 16 }
        + [Layout(clusterSize: 2 << 20), Layout(clusterSize: 512, features: [.bitmaps])]

    @Test("Usage and forecasts are exact on every kind of image", arguments: layouts)
    func matrix(_ layout: Layout) throws {
        let unit = layout.clusterSize
        let count = unit > 65536 ? 3 : 40
        var disk = try TestDisk(layout, byteCount: unit * count)
        let takesCompressed = !layout.isEncrypted && !layout.features.contains(.preallocated) && unit <= 65536
        for number in 1...4 {
            try disk.write([
                .pattern(UInt8(number), at: (number % 3) * unit, count: unit * (number % 2 + 1) / 2),
                .zeros(at: min(count - 1, number) * unit, count: unit / 2),
            ])
            if takesCompressed {
                try disk.write(
                    (0..<6).map { .compressed(UInt8(16 * number + $0), at: (8 * number + $0) * unit, count: unit) })
            }
            try Tool.check("qemu-img", ["snapshot", "-c", "s\(number)"] + disk.snapshotWords)
            disk.created("s\(number)")
        }
        try Self.verify(disk, layout.testDescription)
    }

    /// Compares everything that is said of an image with what an independent count finds, and with what is freed.
    static func verify(_ disk: TestDisk, _ story: String) throws {
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: disk.path)))
        let unit = disk.layout.clusterSize
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        let usage = try image.usage()
        let expected = UsageModel(bytes, clusterSize: unit)
        #expect(UsageModel(usage) == expected, "\(story)")
        #expect(usage.file.leakedByteCount == 0, "\(story)")
        let parts = usage.file.dataByteCount + usage.file.metadata.total + usage.file.freeByteCount
        #expect(parts == UInt64((bytes.count + unit - 1) / unit * unit), "\(story)")

        let snapshots = image.snapshots
        guard !snapshots.isEmpty else { return }
        let before = UsageModel.usedByteCount(bytes, clusterSize: unit)
        let parity = snapshots.indices.filter { $0 % 2 == 0 }
        for doomed in [[0], parity, Array(snapshots.indices)] {
            let forecast = try image.byteCountFreed(byDeletingSnapshotsAt: doomed)
            var ours = try Image(storage: InMemoryStorage(bytes))
            try ours.deleteSnapshots(at: doomed)
            let after = UsageModel.usedByteCount(ours.close().bytes, clusterSize: unit)
            #expect(forecast == Int64(before - after), "ours without \(doomed): \(story)")
            // QEMU changes tables in place, so it may do without refcount blocks that our new ones need.
            let copy = disk.folder.file("copy.qcow2")
            defer { try? FileManager.default.removeItem(atPath: copy) }
            try Data(bytes).write(to: URL(fileURLWithPath: copy))
            for index in doomed {
                try Tool.check("qemu-img", ["snapshot", "-d", snapshots[index].name] + disk.snapshotWords(of: copy))
            }
            let theirs = [UInt8](try Data(contentsOf: URL(fileURLWithPath: copy)))
            let afterTheirs = UsageModel.usedByteCount(theirs, clusterSize: unit)
            let difference = (Int64(before - afterTheirs) - forecast) / Int64(unit)
            #expect((0...1).contains(difference), "qemu-img without \(doomed): \(story)")
        }
    }
}
