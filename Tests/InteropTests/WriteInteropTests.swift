// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Images that our library alone made and wrote, against the real tools.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct WriteInteropTests {
    @Test("What we write on images of every kind is clean and right for qemu-img", arguments: layouts)
    func matrix(_ layout: Layout) throws {
        let unit = layout.clusterSize
        let count = unit > 65536 ? 3 : 24
        var disk = try TestDisk(layout, byteCount: unit * count)
        var first: [TestDisk.GuestWrite] = [.pattern(0x11, at: 0, count: 2 * unit)]
        if unit <= 65536, !layout.features.contains(.preallocated), layout.refcountBits > 2 {
            first += (12..<14).map { .compressed(UInt8($0), at: $0 * unit, count: unit) }
        }
        try disk.write(first)
        try disk.writeByUs([.write(seed: 1, at: unit / 2, count: unit), .zeros(at: unit * 2 + 3, count: unit / 2)])
        try disk.verify("our first writes")
        if layout.refcountBits > 1 {
            try Tool.check("qemu-img", ["snapshot", "-c", "theirs", disk.path])
            disk.created("theirs")
        }
        var changes: [GuestChange] = [
            .write(seed: 2, at: 100, count: unit), .discard(at: unit, count: unit),
            .write(seed: 3, at: unit * count - 700, count: 700),
        ]
        if unit <= 65536 {
            changes += [
                .write(seed: 4, at: 12 * unit + 5, count: 9), .zeros(at: 13 * unit, count: unit),
                .write(seed: 5, at: 15 * unit + unit / 2, count: 4 * unit), .discard(at: 16 * unit, count: 2 * unit),
                .write(seed: 6, at: 17 * unit + 1, count: 3),
            ]
        }
        try disk.writeByUs(changes)
        try disk.verify("our writes beside their snapshot")
        try disk.write([.pattern(0x61, at: unit / 2, count: unit), .pattern(0x62, at: 2 * unit, count: unit / 2)])
        try disk.verify("their writes on ours")
        guard layout.refcountBits > 1 else { return }
        try Tool.check("qemu-img", ["snapshot", "-a", "theirs", disk.path])
        disk.applied("theirs")
        try disk.writeByUs([.write(seed: 7, at: 0, count: 2 * unit + 9)])
        try disk.verify("our writes after their apply")
    }

    /// `QCOW2_WRITE_SEQUENCES` makes the second test longer.
    static let seeds: Range<UInt64> = {
        let count = ProcessInfo.processInfo.environment["QCOW2_WRITE_SEQUENCES"].flatMap { UInt64($0) } ?? 15
        return 1_000_000..<(1_000_000 + count)
    }()

    static let layouts =
        MatrixTests.layouts.filter { layout in
            !layout.isEncrypted && layout.clusterSize != 1024 && ![8, 32].contains(layout.refcountBits)
        } + [Layout(clusterSize: 512, refcountBits: 1)]

    @Test("The lives of our own images please qemu-img", arguments: seeds)
    func sequence(_ seed: UInt64) throws {
        var sequence = WriteSequence(seed: seed)
        let folder = try TemporaryFolder()
        do {
            var image = try sequence.makeImage()
            for _ in 0..<25 { _ = try sequence.step(&image) }
            try image.flush()
            let path = folder.file("disk.qcow2")
            try Data(image.close().bytes).write(to: URL(fileURLWithPath: path))
            let result = try Tool.run("qemu-img", ["check", "-f", "qcow2", path])
            #expect(result.status == 0, "\(sequence.story)\n\(result.output)\(result.errors)")
            let output = folder.file("out.raw")
            for (name, model) in sequence.snapshots.map({ (Optional($0.key), $0.value) }) + [(nil, sequence.active)] {
                let selection = name.map { ["-l", "snapshot.name=\($0)"] } ?? []
                try Tool.check("qemu-img", ["convert", "-f", "qcow2", "-O", "raw"] + selection + [path, output])
                let read = try Data(contentsOf: URL(fileURLWithPath: output))
                // qemu-img reads snapshots at the size of the active state.
                let common = min(read.count, model.count)
                #expect(name != nil || read.count == model.count, "\(sequence.story)")
                #expect(read.prefix(common) == Data(model.prefix(common)), "\(name ?? ""): \(sequence.story)")
            }
        } catch {
            Issue.record(error, "\(sequence.story)")
        }
    }
}
