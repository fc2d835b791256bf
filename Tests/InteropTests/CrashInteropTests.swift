// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Crash states of operations on images that real tools made, judged by us, and a sample by the real tools.
///
/// `QCOW2_CRASH_SAMPLES` says how many of each operation's states the tools look at.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct CrashInteropTests {
    static let sampleCount = ProcessInfo.processInfo.environment["QCOW2_CRASH_SAMPLES"].flatMap { Int($0) } ?? 20

    static let layouts: [Layout] =
        [
            Layout(version: 2, clusterSize: 512), Layout(version: 2, clusterSize: 4096), Layout(version: 2),
            Layout(clusterSize: 16384, features: [.extendedL2]), Layout(), Layout(refcountBits: 64),
            Layout(clusterSize: 4096, features: [.zstd]),
        ]
        + [4, 8, 16, 32, 64].flatMap { bits in
            [Layout(clusterSize: 512, refcountBits: bits), Layout(clusterSize: 4096, refcountBits: bits)]
        }

    @Test("Crash states are old or new, clean for qemu-img, and safe to write to", arguments: layouts, Verb.allCases)
    func crash(_ layout: Layout, _ verb: Verb) throws {
        let disk = try makeDisk(layout)
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: disk.path)))
        var image = try Image(storage: InMemoryStorage(bytes))
        let old = try Contents(of: image)
        try verb.perform(on: &image)
        let new = try Contents(of: image)
        let isLarge = layout.clusterSize > 4096
        let states = CrashStates(
            of: bytes, image.close().journal, randomStatesPerGroup: 8, tornStatesPerWrite: isLarge ? 1 : 4, seed: 3)
        let total = states.forEach { _, _ in }
        let step = max(1, total / Self.sampleCount)
        var index = 0
        try states.forEach { bytes, description in
            defer { index += 1 }
            let story = "\(layout.testDescription), \(verb), \(description)"
            let contents = try Contents(of: bytes)
            #expect(contents == old || contents == new, "\(story)")
            if !isLarge { #expect(ConsistencyCount(bytes).findings.isEmpty, "\(story)") }
            if index % step == 0 { try judge(bytes, contents, disk, story) }
        }
    }

    /// Lets qemu-img check a state and a guest write to it; afterwards all snapshots must read as before.
    private func judge(_ bytes: [UInt8], _ contents: Contents, _ disk: TestDisk, _ story: String) throws {
        let path = disk.folder.file("state.qcow2")
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let check = try Tool.run("qemu-img", ["check", path])
        #expect(check.status == 0, "\(story)\n\(check.output)\(check.errors)")
        let count = contents.states[0].count
        try Tool.check("qemu-io", ["-c", "write -P 0x99 0 \(count / 2)", "-c", "write -z \(count / 2) 512", path])
        let written = try Contents(of: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
        #expect(written.names == contents.names, "\(story)")
        #expect(written.states.dropFirst() == contents.states.dropFirst(), "\(story): a guest write changed a snapshot")
        #expect(written.states[0].prefix(count / 2).allSatisfy { $0 == 0x99 }, "\(story)")
    }

    /// Two snapshots, of different sizes where QEMU allows it, and clusters of all kinds.
    private func makeDisk(_ layout: Layout) throws -> TestDisk {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: (unit > 4096 ? 6 : 40) * unit)
        try disk.write([.pattern(0x11, at: 0, count: 4 * unit), .zeros(at: 2 * unit, count: unit)])
        if layout.refcountBits > 4 { try disk.tryWriting(.compressed(0x12, at: 5 * unit, count: unit)) }
        try Tool.check("qemu-img", ["snapshot", "-c", "first", disk.path])
        if layout.version == 3 { try disk.resize(to: (unit > 4096 ? 7 : 150) * unit) }
        try disk.write([.pattern(0x21, at: unit / 2, count: unit)])
        try Tool.check("qemu-img", ["snapshot", "-c", "second", disk.path])
        try disk.write([.pattern(0x31, at: 3 * unit, count: unit)])
        return disk
    }
}
