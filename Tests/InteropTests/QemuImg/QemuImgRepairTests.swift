// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// `check -r`, and images whose last writer didn't end properly.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct QemuImgRepairTests {
    /// What is done to an image's bytes.
    private enum Damage: String, CaseIterable {
        case none, leak, leaks, lowRefcount, copiedFlagL1, copiedFlagL2, leakAndFlag, corruptMark, unknownAutoclear
        case dirty, dirtyLeak, dirtyLowRefcount, dirtyFlag

        /// Those that an action either repairs first, or has nothing to do with.
        static let leftByWriters: [Damage] = [
            .none, .dirty, .dirtyLeak, .dirtyLowRefcount, .dirtyFlag, .corruptMark, .unknownAutoclear,
        ]

        /// Damages an image of clusters of 64 KiB with refcounts of 16 bits.
        func apply(to bytes: inout [UInt8]) {
            let block = Self.number(bytes, Self.number(bytes, 48))
            let l1 = Self.number(bytes, 40)
            let l2 = Self.number(bytes, l1) & ~(1 << 63)
            func leak(_ cluster: Int, _ count: UInt8, in bytes: inout [UInt8]) {
                bytes[block + 2 * cluster + 1] = count
            }
            func firstDataEntry(_ bytes: [UInt8]) -> Int? {
                stride(from: l2, to: l2 + 65536, by: 8).first { bytes[$0] & 0x80 != 0 }
            }
            switch self {
            case .none: break
            case .leak: leak(bytes.count / 65536 - 1, 1, in: &bytes)
            case .leaks:
                leak(bytes.count / 65536 - 1, 1, in: &bytes)
                leak(bytes.count / 65536 - 2, 3, in: &bytes)
            case .lowRefcount:
                // The L1 table of a snapshot, which is used once; the snapshot's L2 table, which is used twice.
                for cluster in 0..<(bytes.count / 65536) where bytes[block + 2 * cluster + 1] == 2 {
                    bytes[block + 2 * cluster + 1] = 1
                    break
                }
            case .copiedFlagL1: bytes[l1] ^= 0x80
            case .copiedFlagL2: if let entry = firstDataEntry(bytes) { bytes[entry] ^= 0x80 }
            case .leakAndFlag:
                leak(bytes.count / 65536 - 1, 1, in: &bytes)
                if let entry = firstDataEntry(bytes) { bytes[entry] ^= 0x80 }
            case .dirty: bytes[79] |= 1
            case .dirtyLeak, .dirtyLowRefcount, .dirtyFlag:
                bytes[79] |= 1
                let rest: Damage = self == .dirtyLeak ? .leaks : self == .dirtyFlag ? .copiedFlagL2 : .lowRefcount
                rest.apply(to: &bytes)
            case .corruptMark: bytes[79] |= 2
            case .unknownAutoclear: bytes[88] |= 0x40
            }
        }

        private static func number(_ bytes: [UInt8], _ offset: Int) -> Int {
            Int(truncatingIfNeeded: bytes[offset..<(offset + 8)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        }
    }

    /// Every damage, once for each line that follows.
    private func patients(
        _ damages: [Damage], _ lines: [[String]]
    ) throws -> (comparison: Comparison, lines: [Invocation]) {
        let comparison = try Comparison()
        try comparison.prepare("qemu-img", "create", "-q", "-f", "qcow2", "sound.qcow2", "4M")
        try comparison.prepare(
            "qemu-io", "-c", "write -P 1 0 64k", "-c", "write -P 2 256k 128k", "-c", "write -P 3 1M 64k", "sound.qcow2")
        try comparison.prepare("qemu-img", "snapshot", "-c", "first", "sound.qcow2")
        try comparison.prepare("qemu-io", "-c", "write -P 4 512k 64k", "-c", "write -P 5 0 4k", "sound.qcow2")
        try comparison.prepare("truncate", "-s", "+256k", "sound.qcow2")
        var sound = [UInt8](try Data(contentsOf: URL(fileURLWithPath: comparison.master.file("sound.qcow2"))))
        // Whole clusters, some of them behind everything.
        sound += [UInt8](repeating: 0, count: (65536 - sound.count % 65536) % 65536)
        var invocations: [Invocation] = []
        for damage in damages {
            for (index, line) in lines.enumerated() {
                var bytes = sound
                damage.apply(to: &bytes)
                let name = "\(damage.rawValue)-\(index).qcow2"
                try comparison.add(name, bytes)
                invocations.append(Invocation((line.map { $0 == "FILE" ? name : $0 }).map { Array($0.utf8) }))
                // And what is said of it afterwards.
                invocations.append(Invocation("check", name))
                invocations.append(Invocation("snapshot", "-l", name))
                invocations.append(Invocation("compare", "sound.qcow2", name))
            }
        }
        return (comparison, invocations)
    }

    @Test("check -r repairs what qemu-img repairs, and counts the same")
    func repair() throws {
        let (comparison, lines) = try patients(
            Damage.allCases,
            [
                ["check", "-r", "leaks", "FILE"], ["check", "-r", "all", "FILE"],
                ["check", "--output=json", "-r", "leaks", "FILE"], ["check", "-r", "all", "--output=json", "FILE"],
                ["check", "-q", "-r", "all", "FILE"], ["check", "--repair=all", "-f", "qcow2", "FILE"],
            ])
        try comparison.add("text.img", Array("text".utf8))
        var all = lines
        for words in [["-r", "all", "text.img"], ["-r", "all", "-f", "raw", "text.img"], ["-r", "leaks", "missing"]] {
            all.append(Invocation((["check"] + words).map { Array($0.utf8) }))
        }
        try comparison.run(all, then: .repaired)
    }

    @Test("An image with the dirty mark is repaired before anything is done to it")
    func dirty() throws {
        let (comparison, lines) = try patients(
            Damage.leftByWriters,
            [
                ["snapshot", "-c", "second", "FILE"], ["snapshot", "-a", "first", "FILE"],
                ["snapshot", "-d", "first", "FILE"], ["snapshot", "FILE"], ["snapshot", "-a", "nosuch", "FILE"],
                ["resize", "FILE", "+1M"],
            ])
        try comparison.run(lines, then: .repaired)
    }

    @Test("What a snapshot holds whose entry can't be used is freed by qemu-img, and not by us")
    func unusableSnapshot() throws {
        let original = try Fixtures.bytes("v3-512.qcow2")
        var damaged = original
        // Where the snapshot's L1 table is: past the end of the file.
        damaged.replaceSubrange(0x1C00..<0x1C08, with: [0, 0, 0, 0, 0, 1, 0, 0])
        let folder = try TemporaryFolder()
        func repaired(_ program: String, _ words: [String]) throws -> [UInt8] {
            let path = folder.file("disk.qcow2")
            try Data(damaged).write(to: URL(fileURLWithPath: path))
            for _ in 0..<2 {
                let result = try Tool.run(program, words + ["check", "-r", "all", path])
                #expect(result.status == 2, "\(result.output)\(result.errors)")
            }
            var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            bytes.replaceSubrange(0x1C00..<0x1C08, with: original[0x1C00..<0x1C08])
            return bytes
        }
        #expect(try repaired(Tool.qsnap, ["qemu-img"]) == original)
        let theirs = try repaired("qemu-img", [])
        let report = try SuspectImage(storage: InMemoryStorage(theirs, isWritable: false)).check()
        #expect(report.count(of: Finding.Code(rawValue: "refcount-too-low")) > 0)
    }
}
