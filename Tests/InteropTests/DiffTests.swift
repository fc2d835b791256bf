// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// What changed between the states of real images, against their bytes.
///
/// `QCOW2_DIFF_SEQUENCES` says how many random sequences, `QCOW2_SEED` with which seed they start.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct DiffTests {
    static let seeds: Range<UInt64> = {
        let first = SequenceTests.setting("QCOW2_SEED", 1)
        return first..<(first + SequenceTests.setting("QCOW2_DIFF_SEQUENCES", 20))
    }()

    @Test("Every pair of states differs where the model's bytes do, after random sequences", arguments: seeds)
    func sequence(_ seed: UInt64) throws {
        var sequence = try RandomSequence(seed: seed ^ 0xD1FF_0000)
        do {
            for _ in 0..<8 { try sequence.step() }
            let disk = sequence.disk
            try Self.verify(disk, disk.active, disk.snapshots, sequence.story)
        } catch {
            Issue.record(error, "\(sequence.story)")
        }
    }

    static let layouts = MatrixTests.layouts.filter {
        !$0.isEncrypted && [512, 65536].contains($0.clusterSize) && $0.refcountBits == 16
    }

    @Test("Every pair of states differs where qemu-img convert's outputs do", arguments: layouts)
    func matrix(_ layout: Layout) throws {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: unit * 80)
        var contents: [String: [UInt8]] = [:]
        for number in 1...3 {
            try disk.write([
                .pattern(UInt8(number), at: number * unit / 2, count: unit),
                .zeros(at: (4 + number) * unit, count: unit),
                // The same bytes again, in another place of the file.
                .pattern(0x55, at: 10 * unit, count: 2 * unit), .unmappedZeros(at: (12 + number) * unit, count: unit),
                .pattern(UInt8(16 + number), at: (70 + number) * unit + 512 % unit, count: 512),
            ])
            if !layout.features.contains(.preallocated) {
                try disk.write(
                    (0..<3).map { .compressed(UInt8(32 + number * $0), at: (20 + 4 * number + $0) * unit, count: unit) }
                )
            }
            try Tool.check("qemu-img", ["snapshot", "-c", "s\(number)"] + disk.snapshotWords)
            disk.created("s\(number)")
            contents["s\(number)"] = try disk.content("s\(number)")
        }
        try disk.write([.discard(at: 0, count: 8 * unit)])
        try Self.verify(disk, disk.content(nil), contents, layout.testDescription)
    }

    /// Compares all states with each other, and with nothing.
    static func verify(
        _ disk: TestDisk, _ active: [UInt8], _ snapshots: [String: [UInt8]], _ story: String
    ) throws {
        let reader = try ImageReader(Image.open(disk.path, for: .reading), backing: .sameDirectory)
        var states: [(state: DiskState, bytes: [UInt8])] = [(.active, active)]
        for name in snapshots.keys.sorted() { states.append((.snapshot(.name(name)), snapshots[name] ?? [])) }
        for new in states {
            #expect(try diffDefects(of: reader, from: nil, to: new) == [], "all of \(new.state): \(story)")
            for old in states.prefix(3) {
                #expect(try diffDefects(of: reader, from: old, to: new) == [], "\(old.state) to \(new.state): \(story)")
            }
        }
    }
}
