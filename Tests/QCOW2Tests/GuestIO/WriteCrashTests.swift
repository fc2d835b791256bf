// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Guest writes up to a flush, whatever stops them.
@Suite struct WriteCrashTests {
    /// Changes none of which touches a sector twice, so that each sector is old or new.
    static func changes(_ unit: Int, seed: UInt8 = 0) -> [GuestChange] {
        [
            .write(seed: seed + 1, at: 0, count: unit), .write(seed: seed + 2, at: unit, count: 512),
            .write(seed: seed + 3, at: 4 * unit, count: 2 * unit), .zeros(at: 2 * unit, count: unit),
            .discard(at: 7 * unit, count: unit), .write(seed: seed + 4, at: 9 * unit + unit / 2, count: unit),
            .discard(at: 12 * unit, count: 6 * unit), .write(seed: seed + 5, at: 20 * unit, count: unit),
        ]
    }

    /// One of each kind; the random sequences have all geometries.
    static let specimens = Specimen.all.filter {
        ["v2-512", "v3-512-refcount2", "v3-4k-zstd", "v3-16k-extended", "v3-512 with three snapshots"].contains(
            $0.testDescription)
    }

    /// What a script did: the storage's events, and what could be read before and after.
    private struct Outcome {
        let initial: [UInt8]
        let old: Contents
        let new: Contents
        let journal: [StorageEvent]
        let bytes: [UInt8]
    }

    private func outcome(_ bytes: [UInt8], _ changes: [GuestChange]? = nil) throws -> Outcome {
        var image = try Image(storage: InMemoryStorage(bytes))
        let old = try Contents(of: image)
        for change in changes ?? Self.changes(image.clusterSize) { try change.perform(on: &image) }
        try image.flush()
        let new = try Contents(of: image)
        let storage = image.close()
        return Outcome(initial: bytes, old: old, new: new, journal: storage.journal, bytes: storage.bytes)
    }

    /// Whether every sector of the active state is the old or the new one, and the snapshots are what they were.
    static func isSound(_ contents: Contents, _ old: Contents, _ new: Contents) -> Bool {
        let (active, before, after) = (contents.states[0], old.states[0], new.states[0])
        guard contents.names == old.names, contents.states.dropFirst() == old.states.dropFirst(),
            active.count == before.count
        else { return false }
        if active == before || active == after { return true }
        return stride(from: 0, to: active.count, by: 512).allSatisfy { start in
            let sector = active[start..<min(active.count, start + 512)]
            return sector.elementsEqual(before[start..<min(before.count, start + 512)])
                || sector.elementsEqual(after[start..<min(after.count, start + 512)])
        }
    }

    @Test("After a crash each sector is old or new, nothing leaks and no snapshot changed", arguments: specimens)
    func crash(_ specimen: Specimen) throws {
        let first = try outcome(specimen.bytes)
        // On what the first round left, most is written in place, and freed clusters are used again.
        let unit = try Image(storage: InMemoryStorage(specimen.bytes)).clusterSize
        for outcome in [first, try outcome(first.bytes, Self.changes(unit, seed: 100))] {
            #expect(outcome.journal.last { if case .punchHole = $0 { false } else { true } } == .flush)
            let states = CrashStates(
                of: outcome.initial, outcome.journal, randomStatesPerGroup: CrashTests.randomStatesPerGroup,
                tornStatesPerWrite: 8, seed: 5)
            var oldCount = 0
            let count = try states.forEach { bytes, description in
                let contents = try Contents(of: bytes)
                if contents == outcome.old { oldCount += 1 }
                let isSound = Self.isSound(contents, outcome.old, outcome.new)
                #expect(isSound, "\(description)")
                let findings = ConsistencyCount(bytes).findings
                #expect(findings.isEmpty, "\(description): \(findings.joined(separator: "; "))")
            }
            #expect(oldCount > 0 && count > 8)
        }
    }

    @Test("What a flush has returned from is never lost", arguments: specimens)
    func durable(_ specimen: Specimen) throws {
        let outcome = try outcome(specimen.bytes)
        let last = try #require(outcome.journal.lastIndex(of: .flush))
        var flushed = specimen.bytes
        for event in outcome.journal[...last] { event.apply(to: &flushed) }
        let states = CrashStates(
            of: flushed, Array(outcome.journal[(last + 1)...]), randomStatesPerGroup: 10, seed: 6)
        try states.forEach { bytes, description in
            let contents = try Contents(of: bytes)
            let isNew = contents == outcome.new
            #expect(isNew, "\(description)")
        }
    }

    @Test("A flush in the wrong order is caught", arguments: [0, 1])
    func caught(_ barrier: Int) throws {
        let bytes = Specimen.all.first { $0.testDescription == "v3-512" }?.bytes ?? []
        let first = try outcome(bytes)
        let second = try outcome(first.bytes, [.write(seed: 9, at: 12 * 512, count: 6 * 512)])
        // Both rounds in one journal, as the second one uses what the first one freed.
        var journal = first.journal
        let barriers = journal.indices.filter { journal[$0] == .flush }
        journal.remove(at: barriers[barrier])
        journal += second.journal
        var caught = 0
        CrashStates(of: bytes, journal, randomStatesPerGroup: 200, seed: 7).forEach { bytes, _ in
            guard let contents = try? Contents(of: bytes) else { return caught += 1 }
            if !Self.isSound(contents, first.old, first.new), !Self.isSound(contents, second.old, second.new) {
                caught += 1
            }
        }
        #expect(caught > 0)
    }

    @Test("Bitmaps and unknown autoclear bits are given up before the first byte changes", arguments: [false, true])
    func autoclear(_ hasBitmaps: Bool) throws {
        var file = ImageBytes(bytes: try Fixtures.bytes(hasBitmaps ? "v3-512-bitmaps.qcow2" : "v3-512.qcow2"))
        file.set(file.number(at: 88) | 1 << 7, at: 88)
        var image = try Image(storage: InMemoryStorage(file.bytes))
        image.guestWriteOptions.bitmaps = .drop
        let old = try Contents(of: image)
        try image.write([UInt8](repeating: 0xAB, count: 700), at: GuestOffset(0))
        try image.flush()
        let features = image.autoclearFeatures
        #expect(features.isEmpty)
        let new = try Contents(of: image)
        try CrashStates(of: file.bytes, image.close().journal, randomStatesPerGroup: 50, seed: 8).forEach {
            bytes, description in
            let contents = try Contents(of: bytes)
            let isSound = Self.isSound(contents, old, new)
            #expect(isSound, "\(description)")
            #expect(ConsistencyCount(bytes).findings.isEmpty, "\(description)")
            let features = try Image(storage: InMemoryStorage(bytes)).autoclearFeatures
            #expect(contents == old || features.isEmpty, "\(description)")
        }
    }

    static let effects: [FaultInjectingStorage.Effect] = [.none, .half, .whole]

    @Test("A failing operation is reported, hurts nothing, and writing again works", arguments: specimens, effects)
    func fault(_ specimen: Specimen, _ effect: FaultInjectingStorage.Effect) throws {
        let outcome = try outcome(specimen.bytes)
        let opening = try Image(storage: FaultInjectingStorage(specimen.bytes, failingAt: nil)).close()
            .totalOperationCount
        var whole = try Image(storage: FaultInjectingStorage(specimen.bytes, failingAt: nil))
        for change in Self.changes(whole.clusterSize) { try change.perform(on: &whole) }
        try whole.flush()
        let total = whole.close().totalOperationCount
        var failureCount = 0
        for index in opening..<total {
            var image = try Image(storage: FaultInjectingStorage(specimen.bytes, failingAt: index, effect: effect))
            var failure: QCOW2Error?
            do throws(QCOW2Error) {
                for change in Self.changes(image.clusterSize) { try change.perform(on: &image) }
                try image.flush()
            } catch { failure = error }
            let contents = try Contents(of: image)
            let message = "operation \(index) of \(specimen.testDescription)"
            if let failure {
                failureCount += 1
                #expect(failure.code == .inputOutput, "\(message)")
                let isSound = Self.isSound(contents, outcome.old, outcome.new)
                #expect(isSound, "\(message)")
                // At any moment the file holds a clean image.
                for change in Self.changes(image.clusterSize) { try change.perform(on: &image) }
                try image.flush()
            }
            let isNew = try Contents(of: image) == outcome.new
            #expect(isNew, "\(message)")
            try image.createSnapshot(named: "after the failure")
            let storage = image.close()
            let findings = ConsistencyCount(storage.base.bytes).findings
            #expect(findings.isEmpty, "\(message): \(findings.joined(separator: "; "))")
        }
        #expect(failureCount > 10)
    }
}
