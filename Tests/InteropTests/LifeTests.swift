// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import TestTools
import Testing

/// Lives, not operations: two hundred steps on one image, against the model after every one.
///
/// Guest writes, verbs and resizes by us and by QEMU; crashes in the midst of a verb, failing system calls, handles that
/// exclude each other, long sessions, leaks and repairs. `QCOW2_LIVES` says how many lives, `QCOW2_SEED` with which seed
/// they start, `QCOW2_LIFE_STEPS` how long they are: a failure names its seed and all that happened.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct LifeTests {
    static let seeds: Range<UInt64> = {
        let first = SequenceTests.setting("QCOW2_SEED", 1)
        return first..<(first + SequenceTests.setting("QCOW2_LIVES", 10))
    }()
    private static let stepCount = SequenceTests.setting("QCOW2_LIFE_STEPS", 200)

    @Test("A long life leaves every state as the model says, after every step", arguments: seeds)
    func life(_ seed: UInt64) throws {
        // Another sequence than that of the test with the same seed.
        var life = Life(try RandomSequence(seed: seed &+ 1 << 32))
        do {
            for _ in 0..<Self.stepCount {
                try life.step()
                TestTally.add(1, to: "steps", of: "lives")
            }
            try life.sequence.disk.verify(life.sequence.story)
        } catch {
            Issue.record(error, "\(life.sequence.story)")
        }
        TestTally.add(1, to: "lives", of: "lives")
        for (event, count) in life.counts { TestTally.add(count, to: event, of: "lives") }
    }
}
