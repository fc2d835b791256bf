// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import Testing

@testable import QCOW2

/// Counting must not depend on how wide the lanes are.
@Suite struct ReferenceCountTests {
    /// What counting finds out.
    struct Outcome: Equatable {
        let flags: [Int: CopiedFlags]
        let changed: [Bool]
        let lastUsed: [UInt64]
        let free: [ClusterRun]
        let end: UInt64
    }

    /// For each tree, how many of the new state have its mappings: create, delete and apply of the last one.
    static let uses: [@Sendable (_ treeCount: Int) -> (uses: [UInt32], activeTree: Int)] = [
        { count in ([2] + [UInt32](repeating: 1, count: count - 1), 0) },
        { count in ([1] + [UInt32](repeating: 0, count: count - 1), 0) },
        { count in ([0] + [UInt32](repeating: 1, count: count - 2) + [2], count - 1) },
    ]

    @Test("All widths of lanes find the same", arguments: Specimen.all, uses.indices)
    func widths(_ specimen: Specimen, _ use: Int) throws {
        let narrow = try count(specimen, Self.uses[use], UInt16.self)
        #expect(try count(specimen, Self.uses[use], UInt32.self) == narrow)
        #expect(try count(specimen, Self.uses[use], UInt64.self) == narrow)
    }

    @Test("More references than narrow lanes can count are noticed, and counted by wider ones")
    func manySnapshots() throws {
        let specimen = try #require(Specimen.all.first { $0.testDescription == "v3-512" })
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        for number in 0..<40 { try image.createSnapshot(named: "s\(number)") }
        let many = Specimen(testDescription: "many", bytes: image.close().bytes)
        #expect(ConsistencyCount(many.bytes).findings.isEmpty)
        #expect(try count(many, Self.uses[0], UInt16.self) == nil)
        let medium = try count(many, Self.uses[0], UInt32.self)
        #expect(medium != nil)
        #expect(try count(many, Self.uses[0], UInt64.self) == medium)
    }

    private func count<Lane: FixedWidthInteger & UnsignedInteger & Sendable>(
        _ specimen: Specimen, _ use: (Int) -> (uses: [UInt32], activeTree: Int), _: Lane.Type
    ) throws -> Outcome? {
        let storage = InMemoryStorage(specimen.bytes)
        let state = try ImageState(OpenedImage(reading: storage), reading: storage)
        let (uses, activeTree) = use(state.treeCount)
        var work = WorkMeter(nil)
        let parts = state.l1Parts(uses: uses, activeTree: activeTree)
        let tables = try state.l2Tables(parts, reading: storage, &work)
        var counting = ReferenceCount<Lane>(state, tables, budget: 1 << 20)
        guard try counting.count(reading: storage, &work) else { return nil }
        return Outcome(
            flags: Dictionary(counting.flags.changes.map { ($0.table, $0.flags) }) { first, _ in first },
            changed: counting.blocks.hasChanges, lastUsed: counting.blocks.lastUsed, free: counting.blocks.free,
            end: counting.blocks.end)
    }
}
