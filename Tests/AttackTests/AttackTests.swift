// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2Testing
import TestTools
import Testing

/// Every command on structure-aware mutants of valid images, under limits, judged by the laws.
///
/// `QCOW2_ATTACKS` says how many mutants (every verb on each of them then), `QCOW2_SEED` where their seeds start,
/// `QCOW2_ATTACK_BINARY` names another command than the one that was just built, `QCOW2_ATTACK_FINDINGS` a folder
/// that keeps what was found.
@Suite(.enabled(if: LimitedCommand.isPossible, "needs GNU time and coreutils"))
struct AttackTests {
    private static func setting(_ name: String) -> UInt64? {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
    }
    private static let standardCount: UInt64 = 24
    static let seeds: Range<UInt64> = {
        let first = setting("QCOW2_SEED") ?? 1
        return first..<(first + (setting("QCOW2_ATTACKS") ?? standardCount))
    }()
    private static let triesAll = setting("QCOW2_ATTACKS") != nil

    /// The golden images, and one with LUKS where qemu-img can make it.
    private static let bases: [(name: String, bytes: [UInt8], fields: ImageFields)] = {
        let names = [
            "demo", "v2-512", "v3-16k-extended", "v3-4k-zstd", "v3-4k", "v3-512-backing", "v3-512-bitmaps",
            "v3-512-refcount1", "v3-512-refcount2", "v3-512-refcount64", "v3-512",
        ]
        var bases = names.compactMap { name in (try? Fixtures.bytes(name + ".qcow2")).map { (name, $0) } }
        if let luks = try? LUKSImage.bytes() { bases.append(("luks", luks)) }
        return bases.map { ($0, $1, ImageFields(of: $1)) }
    }()

    @Test("Every command keeps every promise on a damaged image", arguments: seeds)
    func attack(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed &* 0x9E37)
        var run = try AttackRun(Mutant(seed: seed, of: Self.bases))
        let verbs = AttackVerb.allCases.shuffled(using: &random)
        if Self.triesAll || seed % 2 == 0 { try run.read() }
        try run.write(Self.triesAll ? verbs : Array(verbs.prefix(3)))
        try run.keep(seed: seed)
        TestTally.add(1, to: "mutants", of: "attacks")
        TestTally.add(run.commandCount, to: "commands", of: "attacks")
        for violation in run.violations {
            TestTally.add(1, to: violation.kind.rawValue, of: "attacks")
            guard !knownBroken.contains(violation.kind) else {
                print("known: \(violation) (\(run.mutant.story))")
                continue
            }
            Issue.record("\(violation) (\(run.mutant.story))")
        }
    }
}
