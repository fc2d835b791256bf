// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Whatever a crash leaves of an operation is the old image or the new one, clean.
@Suite struct CrashTests {
    /// More random states than by default; for a thorough run.
    static let randomStatesPerGroup = Int(ProcessInfo.processInfo.environment["QCOW2_CRASH_STATES"] ?? "") ?? 24

    @Test("Every crash state is the old or the new image", arguments: Verb.allCases, Specimen.all)
    func crash(_ verb: Verb, _ specimen: Specimen) throws {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        let old = try Contents(of: image)
        try verb.perform(on: &image)
        let new = try Contents(of: image)
        #expect(old != new)

        let storage = image.close()
        #expect(storage.journal.count { $0 == .flush } == 2)
        let states = CrashStates(
            of: specimen.bytes, storage.journal, randomStatesPerGroup: Self.randomStatesPerGroup, seed: 1)
        var outcomes: [Contents: Int] = [:]
        let count = try states.forEach { bytes, description in
            let contents = try Contents(of: bytes)
            outcomes[contents, default: 0] += 1
            guard contents == old || contents == new else {
                Issue.record("\(description): neither the old nor the new contents")
                return
            }
            let findings = ConsistencyCount(bytes).findings
            if !findings.isEmpty { Issue.record("\(description): \(findings.joined(separator: "; "))") }
        }
        // Both outcomes must have been seen, or the states prove nothing.
        #expect(outcomes.count == 2 && count > 10)
    }
}

/// The crash tests must notice a committer that does it wrong.
@Suite struct BrokenCommitTests {
    /// What a broken committer would do to a correct journal.
    enum Defect: CaseIterable {
        case noBarrierBeforeHeader, headerFirst, noBarrierAfterHeader, freedTooEarly
    }

    @Test("A commit in the wrong order is caught", arguments: Defect.allCases)
    func caught(_ defect: Defect) throws {
        let bytes = Specimen.all.first { $0.testDescription == "v3-512" }?.bytes ?? []
        var image = try Image(storage: InMemoryStorage(bytes))
        let old = try Contents(of: image)
        try Verb.applyAndSave.perform(on: &image)
        // A second operation reuses what the first one freed.
        let middle = try Contents(of: image)
        try image.createSnapshot(named: "last")
        let new = try Contents(of: image)

        var caught = 0
        let states = CrashStates(
            of: bytes, Self.reordered(image.close().journal, defect), randomStatesPerGroup: 200, seed: 2)
        states.forEach { bytes, _ in
            let contents = try? Contents(of: bytes)
            let isWhole = contents == old || contents == middle || contents == new
            if !isWhole || !ConsistencyCount(bytes).findings.isEmpty { caught += 1 }
        }
        #expect(caught > 0)
    }

    private static func reordered(_ journal: [StorageEvent], _ defect: Defect) -> [StorageEvent] {
        var journal = journal
        let barriers = journal.indices.filter { journal[$0] == .flush }
        switch defect {
        case .noBarrierBeforeHeader: journal.remove(at: barriers[0])
        case .noBarrierAfterHeader: journal.remove(at: barriers[1])
        case .headerFirst:
            let header = journal.remove(at: barriers[0] + 1)
            journal.insert(header, at: 0)
        case .freedTooEarly:
            let holes = journal.filter { if case .punchHole = $0 { true } else { false } }
            journal.insert(contentsOf: holes, at: barriers[0])
        }
        return journal
    }
}
