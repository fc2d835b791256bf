// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Whatever a crash leaves of an operation is the old image or the new one, clean.
///
/// `QCOW2_CRASH_STATES` is the number of random states per group, 64 by default and 24 for large images. When it is set,
/// every write is torn at every sector, every state is read and counted in full, and of large images every 16th; that
/// takes long.
@Suite struct CrashTests {
    static let setting = ProcessInfo.processInfo.environment["QCOW2_CRASH_STATES"].flatMap { Int($0) }
    static let randomStatesPerGroup = setting ?? 64
    static let seed: UInt64 = 1

    @Test("Every crash state is the old or the new image", arguments: Verb.allCases, Specimen.crashing)
    func crash(_ verb: Verb, _ specimen: Specimen) throws {
        try crash([verb], specimen)
    }

    /// What one operation gives back to the file system may still be under way when the next one writes there.
    @Test(
        "Every crash state of two operations in a row is one of three images",
        arguments: [
            [Verb.applyAndSave, .create], [.delete, .create], [.apply, .deleteMany], [.create, .apply],
            [.create, .deleteMany], [.rename, .create],
        ], Specimen.crashing.filter { !$0.isLarge })
    func crashOfTwo(_ verbs: [Verb], _ specimen: Specimen) throws {
        try crash(verbs, specimen)
    }

    private func journal(of verbs: [Verb], on specimen: Specimen) throws -> [StorageEvent] {
        var image = try Image(storage: InMemoryStorage(specimen.bytes))
        for verb in verbs { try verb.perform(on: &image) }
        return image.close().journal
    }

    private func crash(_ verbs: [Verb], _ specimen: Specimen) throws {
        let journal: [StorageEvent]
        do {
            journal = try self.journal(of: verbs, on: specimen)
        } catch let error as QCOW2Error where error.code == .limitExceeded && verbs.count > 1 {
            return  // Refcounts of two bits count no further.
        }
        #expect(journal.count { $0 == .flush } == 2 * verbs.count)
        // After each second flush, and what is given back after it, an operation is done.
        var (bytes, wholes, flushCount) = (specimen.bytes, [specimen.bytes], 0)
        for event in journal {
            if event == .flush { flushCount += 1 }
            event.apply(to: &bytes)
            if event == .flush, flushCount % 2 == 0 { wholes.append(bytes) }
        }
        let interval = (Self.setting != nil ? 1 : 16) * (specimen.isLarge ? 16 : 1)
        var judge = try CrashJudge(wholes, readingEvery: interval)
        #expect(judge.canTellApart)

        let randomStatesPerGroup = specimen.isLarge ? Self.setting ?? 24 : Self.randomStatesPerGroup
        let states = CrashStates(
            of: specimen.bytes, journal, randomStatesPerGroup: randomStatesPerGroup,
            tornStatesPerWrite: Self.setting == nil && specimen.isLarge ? 12 : .max, seed: Self.seed)
        var outcomes = [Int](repeating: 0, count: wholes.count)
        let count = states.forEach { bytes, description in
            switch judge.judge(bytes) {
            case .whole(let index): outcomes[index] += 1
            case .broken(let why): Issue.record("\(description): \(why)")
            }
        }
        // Every outcome must have been seen, or the states prove nothing.
        #expect(outcomes.allSatisfy { $0 > 0 } && count > 10)
        let name = verbs.count == 1 ? verbs[0].rawValue : "two in a row"
        TestTally.add(count, to: name, of: "crash states")
        TestTally.add(judge.readCount, to: name, of: "crash states read and counted in full")
    }
}
