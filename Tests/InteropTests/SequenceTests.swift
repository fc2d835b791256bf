// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Random sequences of guest writes and verbs, by both sides, on random geometry, against a model of the contents.
///
/// `QCOW2_SEQUENCES` says how many, `QCOW2_SEED` with which seed they start: a failure names its seed.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct SequenceTests {
    static func setting(_ name: String, _ standard: UInt64) -> UInt64 {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } ?? standard
    }

    static let seeds: Range<UInt64> = {
        let first = setting("QCOW2_SEED", 1)
        return first..<(first + setting("QCOW2_SEQUENCES", 300))
    }()

    @Test("Every state reads as the model says after every step", arguments: seeds)
    func sequence(_ seed: UInt64) throws {
        var sequence = try RandomSequence(seed: seed)
        do {
            for _ in 0..<8 { try sequence.step() }
            try sequence.disk.verify(sequence.story)
        } catch {
            Issue.record(error, "\(sequence.story)")
        }
    }
}

/// One sequence: an image, and what has happened to it.
struct RandomSequence {
    var disk: TestDisk
    var random: SplitMix64
    private var steps: [String] = []
    private var nextNumber = 1
    private let seed: UInt64

    /// What to say when a step fails.
    var story: String {
        "seed \(seed), \(disk.layout.testDescription), \(disk.active.count) bytes: \(steps.joined(separator: "; "))"
    }

    init(seed: UInt64) throws {
        self.seed = seed
        random = SplitMix64(seed: seed)
        var layout = Layout()
        layout.clusterSize = [512, 512, 1024, 4096, 4096, 16384, 65536].randomElement(using: &random) ?? 512
        layout.version = Int.random(in: 0..<4, using: &random) == 0 ? 2 : 3
        if layout.version == 3 {
            layout.refcountBits = [1, 2, 4, 8, 16, 16, 32, 64].randomElement(using: &random) ?? 16
            if layout.clusterSize >= 16384, Bool.random(using: &random) { layout.features.insert(.extendedL2) }
            if Int.random(in: 0..<3, using: &random) == 0 { layout.features.insert(.zstd) }
        }
        let extras: [Layout.Feature?] = [nil, nil, nil, .preallocated, .backing]
        if let extra = extras.randomElement(using: &random) ?? nil { layout.features.insert(extra) }
        if layout.features.isSuperset(of: [.preallocated, .extendedL2]) { layout.features.remove(.preallocated) }
        let clusterCount = layout.clusterSize <= 1024 ? Int.random(in: 8...300, using: &random) : 12
        disk = try TestDisk(layout, byteCount: clusterCount * layout.clusterSize)
    }

    /// Does one random thing, and looks at everything.
    mutating func step() throws {
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<7: try writeAsGuest()
        case 7..<11: try create()
        case 11..<14: try apply()
        case 14..<16: try delete()
        case 16..<17: try rename()
        default: try resize()
        }
        try disk.verifyClean(story)
        try disk.verifyStates(story)
    }

    mutating func note(_ step: String) { steps.append(step) }

    /// Whether QEMU carries out the next verb.
    ///
    /// Not with narrow refcounts, where it leaks clusters on an overflow and meets some that aren't necessary.
    private mutating func isQEMUsTurn() -> Bool {
        disk.layout.refcountBits > 4 && Int.random(in: 0..<3, using: &random) == 0
    }

    private mutating func writeAsGuest() throws {
        if Bool.random(using: &random) {
            let changes = (0..<Int.random(in: 1...6, using: &random)).map { _ in
                GuestChange.random(disk.active.count, clusterSize: disk.layout.clusterSize, using: &random)
            }
            note("our " + changes.map(\.description).joined(separator: ", "))
            return try disk.writeByUs(changes)
        }
        var writes: [TestDisk.GuestWrite] = []
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let unit = disk.layout.clusterSize
            let sectors = disk.active.count / 512
            let first = Int.random(in: 0..<sectors, using: &random)
            let count = Int.random(in: 1...min(sectors - first, max(4, 3 * unit / 512)), using: &random)
            let byte = UInt8.random(in: 1...255, using: &random)
            switch Int.random(in: 0..<8, using: &random) {
            case 0: writes.append(.zeros(at: first * 512, count: count * 512))
            case 1: writes.append(.unmappedZeros(at: first * 512, count: count * 512))
            case 2 where writes.isEmpty:
                // What a discard leaves is read back, so it is the only write of its step.
                let write = TestDisk.GuestWrite.discard(at: first * 512, count: count * 512)
                note("\(write)")
                return try disk.write([write])
            case 3 where writes.isEmpty && disk.layout.refcountBits > 4 && disk.active.count >= unit:
                let cluster = Int.random(in: 0..<(disk.active.count / unit), using: &random)
                let write = TestDisk.GuestWrite.compressed(byte, at: cluster * unit, count: unit)
                note("\(write)")
                // QEMU refuses to compress a cluster that it could write in place.
                return try disk.tryWriting(write)
            default: writes.append(.pattern(byte, at: first * 512, count: count * 512))
            }
        }
        note(writes.map(\.description).joined(separator: ", "))
        try disk.write(writes)
    }

    private mutating func create() throws {
        let name = newName()
        if isQEMUsTurn() {
            note("their create \(name)")
            try Tool.check("qemu-img", ["snapshot", "-c", name] + disk.snapshotWords)
        } else {
            note("our create \(name)")
            guard try update({ image throws(QCOW2Error) in try image.createSnapshot(named: name) }) else { return }
        }
        disk.created(name)
    }

    private mutating func apply() throws {
        guard let name = disk.snapshots.keys.sorted().randomElement(using: &random) else { return }
        // QEMU can't apply what its resize of version 2 would have to undo, and so never made.
        if isQEMUsTurn() {
            note("their apply \(name)")
            try Tool.check("qemu-img", ["snapshot", "-a", name] + disk.snapshotWords)
        } else if Bool.random(using: &random) {
            let saved = newName()
            note("our apply \(name) saving \(saved)")
            let didIt = try update { image throws(QCOW2Error) in
                try image.applySnapshot(.name(name), savingCurrentAs: saved)
            }
            guard didIt else { return }
            disk.created(saved)
        } else {
            note("our apply \(name)")
            guard try update({ image throws(QCOW2Error) in try image.applySnapshot(.name(name)) }) else { return }
        }
        disk.applied(name)
    }

    private mutating func delete() throws {
        let names = disk.snapshots.keys.sorted().shuffled(using: &random)
        guard let first = names.first else { return }
        if isQEMUsTurn() {
            note("their delete \(first)")
            try Tool.check("qemu-img", ["snapshot", "-d", first] + disk.snapshotWords)
            return disk.deleted(first)
        }
        let doomed = Array(names.prefix(Int.random(in: 1...names.count, using: &random)))
        note("our delete \(doomed.joined(separator: " "))")
        guard
            try update({ image throws(QCOW2Error) in try image.deleteSnapshots(doomed.map { .name($0) }) })
        else { throw Tool.Failed(description: "deleting can't overflow") }
        for name in doomed { disk.deleted(name) }
    }

    private mutating func rename() throws {
        guard let name = disk.snapshots.keys.sorted().randomElement(using: &random) else { return }
        let new = newName()
        note("our rename \(name) to \(new)")
        _ = try update { image throws(QCOW2Error) in try image.renameSnapshot(.name(name), to: new) }
        disk.renamed(name, to: new)
    }

    private mutating func resize() throws {
        // QEMU refuses it for version 2 with snapshots.
        guard disk.layout.version == 3 || disk.snapshots.isEmpty else { return }
        let unit = disk.layout.clusterSize
        let byteCount = max(
            1, disk.active.count / 512 + Int.random(in: (-8 * unit / 512)...(8 * unit / 512), using: &random))
        if Bool.random(using: &random) {
            note("their resize to \(byteCount * 512)")
            return try disk.resize(to: byteCount * 512)
        }
        note("our resize to \(byteCount * 512)")
        let backingSize = UInt64(disk.backing.count)
        do throws(QCOW2Error) {
            var image = try Image.open(disk.path, for: .writing)
            try image.resize(to: UInt64(byteCount * 512), allowingDataLoss: true, backingSize: backingSize)
        } catch {
            // What the backing file has behind the old end can't always be hidden without reading it.
            guard error.code == .backingFileNotAllowed || error.code == .unsupported,
                UInt64(disk.active.count) < backingSize
            else { throw error }
            return note("refused")
        }
        disk.resized(to: byteCount * 512)
    }

    mutating func newName() -> String {
        defer { nextNumber += 1 }
        return "s\(nextNumber)"
    }

    /// Carries out a verb of ours; false when it was refused because a refcount would overflow, and changed nothing.
    private func update<Result>(
        _ body: (inout Image<FileStorage>) throws(QCOW2Error) -> Result
    ) throws -> Bool {
        let before = try Data(contentsOf: URL(fileURLWithPath: disk.path))
        do throws(QCOW2Error) {
            var image = try Image.open(disk.path, for: .writing)
            _ = try body(&image)
            return true
        } catch {
            guard error.code == .limitExceeded, disk.layout.refcountBits <= 4 else { throw error }
            #expect(try Data(contentsOf: URL(fileURLWithPath: disk.path)) == before, "\(story): a refusal wrote")
            return false
        }
    }
}
