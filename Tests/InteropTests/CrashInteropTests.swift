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
    static let sampleCount = ProcessInfo.processInfo.environment["QCOW2_CRASH_SAMPLES"].flatMap { Int($0) } ?? 18

    static let layouts: [Layout] =
        [
            Layout(version: 2, clusterSize: 512), Layout(version: 2, clusterSize: 4096), Layout(version: 2),
            Layout(clusterSize: 16384, features: [.extendedL2]), Layout(), Layout(refcountBits: 4),
            Layout(refcountBits: 64), Layout(features: [.extendedL2, .zstd]),
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
        try verb.perform(on: &image)
        let storage = image.close()
        let isLarge = layout.clusterSize > 4096
        var judge = try CrashJudge([bytes, storage.bytes], readingEvery: isLarge ? 64 : 16)
        let states = CrashStates(
            of: bytes, storage.journal, randomStatesPerGroup: 16, tornStatesPerWrite: isLarge ? 3 : 7, seed: 3)
        let total = states.forEach { _, _ in }
        let step = max(1, total / Self.sampleCount)
        var (index, sample) = (0, [Sampled]())
        try states.forEach { bytes, description in
            defer { index += 1 }
            let story = "\(layout.testDescription), \(verb), \(description)"
            switch judge.judge(bytes) {
            case .broken(let why): Issue.record("\(story): \(why)")
            case .whole(let whole) where index % step == 0:
                let path = disk.folder.file("state\(sample.count).qcow2")
                try Data(bytes).write(to: URL(fileURLWithPath: path))
                sample.append(Sampled(path: path, contents: judge.contents(whole), story: story))
            case .whole: break
            }
        }
        try check(sample)
        TestTally.add(total, to: "\(verb)", of: "crash states of qemu-img's images")
        TestTally.add(sample.count, to: "\(verb)", of: "crash states checked by qemu-img and written to by qemu-io")
    }

    /// A state for the real tools to look at.
    private struct Sampled {
        let path: String
        let contents: Contents
        let story: String
    }

    /// Lets qemu-img check states and a guest write to them; afterwards all snapshots must read as before.
    private func check(_ sample: [Sampled]) throws {
        for state in sample {
            let check = try Tool.run("qemu-img", ["check", "-q", state.path])
            #expect(check.status == 0, "\(state.story)\n\(check.output)\(check.errors)")
        }
        // One process writes to all of them, each opened and closed as by a guest of its own.
        let commands = sample.flatMap { state in
            let half = state.contents.states[0].count / 2
            return ["open -t unsafe \(state.path)", "write -q -P 0x99 0 \(half)", "write -q -z \(half) 512", "close"]
        }
        let output = try Tool.check("qemu-io", commands.flatMap { ["-c", $0] })
        #expect(output.isEmpty, "\(output)")
        for state in sample {
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: state.path)))
            let written = try Contents(of: bytes)
            let half = state.contents.states[0].count / 2
            #expect(written.names == state.contents.names, "\(state.story)")
            #expect(
                written.states.indices.dropFirst().allSatisfy {
                    isSame(written.states[$0], state.contents.states[$0])
                }, "\(state.story): a guest write changed a snapshot")
            let expected = [UInt8](repeating: 0x99, count: half)
            #expect(isSame(Array(written.states[0].prefix(half)), expected), "\(state.story)")
            try FileManager.default.removeItem(atPath: state.path)
        }
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
