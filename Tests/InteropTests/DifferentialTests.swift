// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Damages golden images at random, and compares what our check says of them with what `qemu-img check` says.
///
/// QCOW2_MUTATIONS says how many images are made of each golden one, QCOW2_SEED with which to start; every difference
/// must have a rule in ``DifferenceRule/all``.
@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"))
struct DifferentialTests {
    static let images = [
        "v2-512", "v3-512", "v3-512-bitmaps", "v3-512-backing", "v3-512-refcount1", "v3-512-refcount2",
        "v3-512-refcount64", "v3-4k", "v3-4k-zstd", "v3-16k-extended",
    ]

    private static func number(_ name: String, default value: UInt64) -> UInt64 {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } ?? value
    }

    @Test("Our verdict on a damaged image is qemu-img's, or differs by a known rule", arguments: images)
    func verdicts(_ name: String) throws {
        let base = try Fixtures.bytes("\(name).qcow2")
        let mutator = ImageMutator(base: base)
        let folder = try TemporaryFolder()
        let path = folder.file("\(name).qcow2")
        let first = Self.number("QCOW2_SEED", default: 1)
        let count = Self.number("QCOW2_MUTATIONS", default: 40)
        // qemu-img opens the backing file even to check.
        try Data(count: 12288).write(to: URL(fileURLWithPath: folder.file("backing.raw")))
        var differences: [String: Int] = [:]
        var equalCount = 0
        for seed in first..<(first + count) {
            var random = SplitMix64(seed: seed)
            var bytes = base
            for _ in 0..<Int.random(in: 1...3, using: &random) { mutator.mutate(&bytes, random.next()) }
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            let theirs = try Verdict(ofQEMU: path)
            let ours = Verdict(ofUs: bytes)
            guard ours.outcome != theirs.outcome else {
                equalCount += 1
                continue
            }
            let difference = VerdictDifference(ours: ours, theirs: theirs)
            guard let rule = DifferenceRule.all.first(where: { $0.explains(difference) }) else {
                Issue.record("\(name), seed \(seed): \(difference)")
                continue
            }
            differences[rule.name, default: 0] += 1
        }
        let list = differences.sorted { $0.key < $1.key }.map { "\($0.value) × \($0.key)" }
        print("\(name): \(count) images from seed \(first), \(equalCount) alike; \(list.joined(separator: "; "))")
    }
}

/// What a checker says of an image.
struct Verdict {
    /// How it ends, as an exit status.
    enum Outcome: Int32 {
        case clean = 0
        /// The image can't be opened or checked.
        case refused = 1
        case corruption = 2
        case leaks = 3

        init(_ severity: Finding.Severity?) {
            switch severity {
            case .critical, .corruption: self = .corruption
            case .leak: self = .leaks
            case .unsupported, .notice, nil: self = .clean
            }
        }
    }

    let outcome: Outcome
    /// How bad each code is that was found; of qemu-img nothing.
    var codes: [String: Finding.Severity] = [:]
    /// Whether every refcount that is too high belongs to a cluster behind the end of the file.
    var isTooHighPastEndOnly = true
    let text: String

    /// What it would be without some of the codes.
    func outcome(without codes: Set<String>) -> Outcome {
        outcome == .refused ? .refused : Outcome(self.codes.filter { !codes.contains($0.key) }.values.max())
    }

    init(ofQEMU path: String) throws {
        // It may say more than a pipe holds; what matters is at the start or at the end.
        let script = """
            qemu-img check -f qcow2 "$0" >"$0.out" 2>&1; status=$?
            head -c 4000 "$0.out"; tail -c 16000 "$0.out"; exit $status
            """
        let result = try Tool.run("bash", ["-c", script, path])
        outcome = result.wasKilled ? .refused : Outcome(rawValue: result.status) ?? .refused
        text = (result.output + result.errors).split(separator: "\n").joined(separator: " | ")
    }

    init(ofUs bytes: [UInt8]) {
        do throws(QCOW2Error) {
            let image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
            var messages: [String] = []
            var isTooHighInside = false
            var options = CheckOptions()
            options.findingLimitPerCode = 100_000
            let report = try image.check(options) { finding in
                if finding.code.rawValue == "refcount-too-high", finding.offset?.rawValue ?? 0 < bytes.count {
                    isTooHighInside = true
                }
                if finding.severity > .notice, messages.count < 6 {
                    messages.append("\(finding.code): \(finding.message)")
                }
            }
            outcome = Outcome(report.worstSeverity)
            isTooHighPastEndOnly = !isTooHighInside
            for tally in report.tallies { codes[tally.code.rawValue] = tally.severity }
            text = messages.joined(separator: " | ")
        } catch {
            outcome = .refused
            text = "\(error)"
        }
    }
}

/// An image of which two checkers say different things.
struct VerdictDifference: CustomStringConvertible {
    let ours: Verdict
    let theirs: Verdict

    var description: String {
        """
        we say \(ours.outcome), qemu-img \(theirs.outcome)
          \(ours.codes.keys.sorted()) \(ours.text)
          \(theirs.text.prefix(600))
        """
    }
}

/// Why a verdict may differ.
struct DifferenceRule: Sendable {
    let name: String
    let explains: @Sendable (VerdictDifference) -> Bool

    /// What qemu-img doesn't look at: section 6.9, and that VM state fits into its snapshot's L1 table.
    ///
    /// Without these findings the verdicts must be the same.
    private static let unseen: Set<String> = [
        "snapshot-vm-state", "snapshot-disk-size", "l2-table-twice-in-tree", "cluster-mapped-twice", "bitmaps-missing",
        "header-length-odd", "subclusters-invalid", "snapshot-l1-shared", "active-l1-shared",
        // In version 2, where reading such a cluster fails, and with extended entries.
        "l2-entry-zero-bit",
    ]

    /// The words with which qemu-img gives up, and the code of our finding that is the reason.
    private static let refusals: [(words: String, code: String)] = [
        ("Invalid backing file offset", "header-field-invalid"),
        ("Backing file name too long", "header-field-invalid"),
        ("Could not refresh total sector count", "header-field-invalid"),
        ("L1 table is too small", "header-field-invalid"),
        ("Active L1 table offset invalid", "header-field-invalid"),
        ("Active L1 table too large", "header-field-invalid"),
        ("data-file-raw requires a data file", "features-contradict"),
        ("Header extension too large", "extension-invalid"),
        ("bitmaps_ext: ", "bitmaps-invalid"),
        ("Could not read bitmap_table", "bitmaps-invalid"),
        ("Broken bitmap directory", "bitmaps-invalid"),
        ("doesn't satisfy the constraints", "bitmaps-invalid"),
        ("Bitmap extra data is not supported", "bitmaps-invalid"),
        ("Too much extra metadata in snapshot table", "snapshot-table-invalid"),
        ("snapshot table offset invalid", "snapshot-table-invalid"),
        ("snapshot table too large", "snapshot-table-invalid"),
        ("I/O error in check_refcounts_l1", "snapshot-entry-invalid"),
        ("Reference count table too large", "refcount-table-invalid"),
        ("Reference count table offset invalid", "refcount-table-invalid"),
        // It goes on, and then can't read a refcount.
        ("Can't get refcount for cluster", "refcount-table-entry-invalid"),
    ]

    static let all: [DifferenceRule] = [
        DifferenceRule(name: "qemu-img can't open it, or not check it to the end, for what we say is corrupt") {
            guard $0.theirs.outcome == .refused, $0.ours.outcome == .corruption else { return false }
            let (text, codes) = ($0.theirs.text, $0.ours.codes)
            return refusals.contains { text.contains($0.words) && codes[$0.code] != nil }
        },
        DifferenceRule(name: "qemu-img needs a key even to check") {
            $0.theirs.outcome == .refused && $0.theirs.text.contains("encrypt.key-secret")
        },
        DifferenceRule(name: "qemu-img opens the backing file, which isn't the one that was named") {
            $0.theirs.outcome == .refused && $0.theirs.text.contains("backing file")
        },
        DifferenceRule(name: "qemu-img reads bitmaps that count for nothing, as they aren't trusted or are in use") {
            $0.theirs.outcome == .refused && $0.theirs.text.contains("bitmap")
        },
        DifferenceRule(name: "qemu-img doesn't see refcounts of clusters past the end of the file") {
            $0.theirs.outcome == $0.ours.outcome(without: ["refcount-too-high"]) && $0.ours.isTooHighPastEndOnly
        },
        DifferenceRule(name: "qemu-img doesn't look at it") {
            // Both this and the rule above, where it holds.
            let pastEnd: Set<String> = $0.ours.isTooHighPastEndOnly ? ["refcount-too-high"] : []
            return $0.theirs.outcome == $0.ours.outcome(without: unseen.union(pastEnd))
        },
    ]
}
