// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// The crash tests must notice a committer that does it wrong.
@Suite struct BrokenCommitTests {
    /// What a broken committer would do to a correct journal of two operations.
    enum Defect: CaseIterable {
        /// The switch may reach the disk ahead of what it switches to.
        case noBarrierBeforeHeader
        case headerFirst
        /// What the first operation freed is used again by the second one before the switch is on the disk.
        case freedAndReusedAtOnce
        case freedTooEarly
        /// A table of the old state is overwritten, as `qemu-img` does when it applies a snapshot.
        case inPlace
        /// The header's fields change one after the other.
        case headerInTwoWrites
    }

    static let specimens = Specimen.crashing.filter {
        ["v3-512", "v2-512 with three snapshots", "v3-4k", "v3, clusters of 512, 64-bit refcounts"]
            .contains($0.testDescription)
    }

    @Test("A commit in the wrong order is caught", arguments: Defect.allCases, specimens)
    func caught(_ defect: Defect, _ specimen: Specimen) throws {
        #expect(try !findings(defect, specimen).isEmpty)
    }

    @Test("The same commit in the right order is not", arguments: specimens)
    func right(_ specimen: Specimen) throws {
        #expect(try findings(nil, specimen).isEmpty)
    }

    private func findings(_ defect: Defect?, _ specimen: Specimen) throws -> [String] {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        try Verb.applyAndSave.perform(on: &image)
        try image.createSnapshot(named: "last")
        let journal = image.close().journal
        let barriers = journal.indices.filter { journal[$0] == .flush }
        #expect(barriers.count == 4)
        let wholes = [0, barriers[1] + 1, journal.count].map { end in
            var bytes = specimen.bytes
            for event in journal[..<end] { event.apply(to: &bytes) }
            return bytes
        }
        var judge = try CrashJudge(wholes, readingEvery: 16)
        var findings: [String] = []
        let events = defect.map { broken(journal, barriers, $0, specimen) } ?? journal
        let states = CrashStates(of: specimen.bytes, events, randomStatesPerGroup: 200, seed: 2)
        states.forEach { bytes, description in
            if case .broken(let why) = judge.judge(bytes) { findings.append("\(description): \(why)") }
        }
        return findings
    }

    private func broken(
        _ correct: [StorageEvent], _ barriers: [Int], _ defect: Defect, _ specimen: Specimen
    ) -> [StorageEvent] {
        var journal = correct
        let header = barriers[0] + 1
        switch defect {
        case .noBarrierBeforeHeader: journal.remove(at: barriers[0])
        case .freedAndReusedAtOnce: journal.remove(at: barriers[1])
        case .headerFirst: journal.insert(journal.remove(at: header), at: 0)
        case .freedTooEarly:
            let holes = journal[barriers[1]..<barriers[2]].filter { if case .punchHole = $0 { true } else { false } }
            journal.insert(contentsOf: holes, at: barriers[0])
        case .inPlace:
            let l1Table = HostOffset(ImageBytes(bytes: specimen.bytes).number(at: 40))
            journal.insert(.write([UInt8](repeating: 0, count: 8), at: l1Table), at: 0)
        case .headerInTwoWrites:
            guard case .write(let sector, let offset) = journal[header] else { return journal }
            // The first ends behind the L1 table's fields; the second holds refcount table and snapshot table.
            journal.replaceSubrange(
                header...header,
                with: [.write(Array(sector[..<48]), at: offset), .write(Array(sector[48...]), at: HostOffset(48))])
        }
        return journal
    }
}
