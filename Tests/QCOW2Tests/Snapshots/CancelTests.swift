// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import Synchronization
import TestTools
import Testing

/// What happens after somebody, or a signal, asks an operation to stop.
@Suite struct CancelTests {
    /// Counts the questions whether to go on.
    private final class Questions: Sendable {
        let count = Atomic<Int>(0)

        /// Says yes so many times.
        func answer(yes limit: Int) -> Bool { count.wrappingAdd(1, ordering: .relaxed).oldValue < limit }
    }

    @Test(
        "After a wish to stop nothing is written but what drops or ends the commit", arguments: Verb.allCases,
        Specimen.crashing.filter { !$0.isLarge })
    func cancel(_ verb: Verb, _ specimen: Specimen) throws {
        let old = try Contents(of: specimen.bytes)
        var judge = try CrashJudge([specimen.bytes], readingEvery: 8)
        var stop = 0
        while true {
            let storage = CountingStorage(specimen.bytes)
            let questions = Questions()
            let limit = stop
            nonisolated(unsafe) let tally = storage.tally
            nonisolated(unsafe) var changesBefore: Int?
            var options = WriteOptions()
            options.progress = { _ in
                if questions.answer(yes: limit) { return true }
                if changesBefore == nil { changesBefore = tally.changeCount }
                return false
            }
            var image = try Image(storage: storage)
            var isDone = true
            do throws(QCOW2Error) {
                try verb.perform(on: &image, options)
            } catch {
                #expect(error.code == .cancelled)
                isDone = false
            }
            #expect(try (Contents(of: image) == old) == !isDone)
            let bytes = image.close().bytes
            if isDone {
                #expect(ConsistencyCount(bytes).findings.isEmpty)
            } else {
                // Clusters that are free within the old file may hold what was begun.
                if case .broken(let why) = judge.judge(bytes) { Issue.record("stopped at \(stop): \(why)") }
                #expect(bytes.count == specimen.bytes.count, "stopped at \(stop)")
                // The one change is the file's length, back to what it was.
                #expect(tally.changeCount - (changesBefore ?? 0) <= 1, "stopped at \(stop)")
            }
            TestTally.add(1, to: "\(verb)", of: "wishes to stop")
            if questions.count.load(ordering: .relaxed) <= stop { return }
            stop += 1
        }
    }
}
