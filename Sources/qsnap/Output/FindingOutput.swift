// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import Synchronization

/// Prints findings as they come, and what they amount to at the end; as lines or as one JSON object.
final class FindingOutput: Sendable {
    private let image: String
    private let json: Bool
    private let isMovingTarget: Bool
    private let state = Mutex(State())

    private struct State {
        var pending = ""
        var count = 0
        var remainingCount = 0
        var failure: Failure?
    }

    init(image: String, json: Bool, isMovingTarget: Bool) {
        self.image = image
        self.json = json
        self.isMovingTarget = isMovingTarget
    }

    /// The object's start, once it is known that there is something to say.
    private var start: String { "{\n  \"image\": \(JSON.string(image).text()),\n  \"findings\": [" }

    /// Whether nobody reads the output any more.
    var hasFailed: Bool { state.withLock { $0.failure != nil } }

    func throwFailure() throws(Failure) {
        if let failure = state.withLock({ $0.failure }) { throw failure }
    }

    /// Prints a finding.
    func add(_ finding: Finding) {
        let isFirst = state.withLock { state in
            defer { state.count += 1 }
            return state.count == 0
        }
        if json {
            write((isFirst ? start + "\n    " : ",\n    ") + finding.json.text(indent: "    "))
        } else {
            write(printable(finding.line) + "\n")
        }
    }

    /// Prints a finding of the check after a repair.
    func addRemaining(_ finding: Finding) {
        let isFirst = state.withLock { state in
            defer { state.remainingCount += 1 }
            return state.remainingCount == 0
        }
        if json {
            let head = isFirst ? endOfFindings + ",\n  \"remaining\": [\n    " : ",\n    "
            write(head + finding.json.text(indent: "    "))
        } else {
            write((isFirst ? "Not repaired:\n" : "") + printable(finding.line) + "\n")
        }
    }

    /// The end of the array of findings.
    private var endOfFindings: String { state.withLock { $0.count == 0 } ? start + "]" : "\n  ]" }

    /// Prints the end.
    func finish(_ report: CheckReport, _ repair: RepairReport?) throws(Failure) {
        if json {
            let all = report.members + (repair?.members ?? []) + [("moving-target", .bool(isMovingTarget))]
            let lines = all.map { "  \(JSON.string($0.0).text()): \($0.1.text(indent: "  "))" }
            let isEmpty = state.withLock { $0.remainingCount == 0 }
            write((isEmpty ? endOfFindings : "\n  ]") + ",\n" + lines.joined(separator: ",\n") + "\n}\n")
        } else {
            let sentences = repair?.sentences ?? []
            write(sentences.map { $0 + "\n" }.joined())
            write(report.summary(of: image, isMovingTarget: isMovingTarget) + "\n")
        }
        flush()
        try throwFailure(after: repair?.after == nil ? nil : "Repaired '\(image)'.")
    }

    private func throwFailure(after sentence: String?) throws(Failure) {
        do throws(Failure) {
            try throwFailure()
        } catch {
            guard let sentence else { throw error }
            throw Failure("\(sentence.dropLast()), but printing that failed. \(error.message)", status: error.status)
        }
    }

    private func write(_ text: String) {
        let isFull = state.withLock { state in
            state.pending += text
            return state.pending.utf8.count >= 1 << 16
        }
        if isFull { flush() }
    }

    private func flush() {
        state.withLock { state in
            do throws(Failure) {
                if state.failure == nil { try Console.write(state.pending) }
            } catch {
                state.failure = error
            }
            state.pending = ""
        }
    }
}

extension Finding {
    /// The finding with the documented keys.
    var json: JSON {
        .object([
            ("code", .string(code.rawValue)), ("severity", .string(severity.rawValue)),
            ("offset", .optional(offset?.rawValue)), ("table", .optional(table)), ("index", .optional(index)),
            ("count", .number(count)), ("message", .string(message)), ("confidence", .string(confidence.rawValue)),
            ("confidence-reason", .optional(confidenceReason)),
        ])
    }

    /// The finding on one line.
    var line: String {
        let place = offset.map { " at \($0)" } ?? ""
        return "\(severity.rawValue): \(code)\(place): \(message)"
    }
}

extension CheckReport {
    /// The keys of the JSON object.
    var members: [(String, JSON)] {
        [
            ("counts", .object(Finding.Severity.allCases.reversed().map { ($0.rawValue, .number(count(of: $0))) })),
            (
                "codes",
                .array(
                    tallies.map { tally in
                        .object([
                            ("code", .string(tally.code.rawValue)),
                            ("severity", .string(tally.severity.rawValue)),
                            ("count", .number(tally.count)),
                            ("reported", .number(tally.reportedCount)),
                        ])
                    })
            ),
            ("complete", .bool(isComplete)),
            ("total-clusters", .number(totalClusterCount)),
            ("allocated-clusters", .number(allocatedClusterCount)),
            ("fragmented-clusters", .number(fragmentedClusterCount)),
            ("compressed-clusters", .number(compressedClusterCount)),
            ("image-end-offset", .number(imageEndOffset.rawValue)),
            ("checked-snapshots", .number(UInt64(checkedSnapshotCount))),
            ("decompressed-clusters", .number(decodedClusterCount)),
        ]
    }

    /// What was found, for people.
    func summary(of image: String, isMovingTarget: Bool) -> String {
        var lines = tallies.filter { $0.count > $0.reportedCount }.map {
            "\($0.severity.rawValue): \($0.code): \($0.count - $0.reportedCount) more not shown."
        }
        lines.append(verdict(on: image))
        if !isComplete { lines.append("Something that may refer to clusters can't be read, so leaks can't be told.") }
        if isMovingTarget {
            lines.append("The image was read without a lock: another process may have written to it meanwhile.")
        }
        let snapshots = checkedSnapshotCount == 1 ? "1 snapshot" : "\(checkedSnapshotCount) snapshots"
        lines.append("Checked the active state and \(snapshots).")
        if totalClusterCount > 0, allocatedClusterCount > 0 {
            lines.append(
                "\(allocatedClusterCount)/\(totalClusterCount) clusters = "
                    + "\(percent(allocatedClusterCount, of: totalClusterCount)) allocated, "
                    + "\(percent(fragmentedClusterCount, of: allocatedClusterCount)) fragmented, "
                    + "\(percent(compressedClusterCount, of: allocatedClusterCount)) compressed.")
        }
        lines.append("Image end offset: \(imageEndOffset.rawValue).")
        return lines.map(printable).joined(separator: "\n")
    }

    private func verdict(on image: String) -> String {
        let counts = Finding.Severity.allCases.reversed().compactMap { severity -> String? in
            let count = count(of: severity)
            guard count > 0 else { return nil }
            let name =
                switch severity {
                case .critical: "critical"
                case .corruption: count == 1 ? "corruption" : "corruptions"
                case .leak: count == 1 ? "leak" : "leaks"
                case .notice: count == 1 ? "notice" : "notices"
                case .unsupported: "unsupported"
                }
            return "\(count) \(name)"
        }
        if counts.isEmpty { return "'\(image)' is clean." }
        return "'\(image)' \(isClean ? "is clean" : "is not clean"): \(counts.joined(separator: ", "))."
    }

    private func percent(_ part: UInt64, of whole: UInt64) -> String {
        let hundredths = Int((Double(part) * 10000 / Double(whole)).rounded())
        let rest = String(hundredths % 100)
        return "\(hundredths / 100).\(rest.count < 2 ? "0" : "")\(rest)%"
    }
}

extension RepairReport {
    /// Keys of the JSON object that a check alone doesn't have.
    var members: [(String, JSON)] {
        let marks = [(IncompatibleFeatures.dirty, "dirty"), (.corrupt, "corrupt")]
        return [
            ("repaired", .bool(after != nil)),
            ("remnants", .array(remnants.map(\.json))),
            (
                "changes",
                .object([
                    ("raised-refcounts", .number(raisedRefcountCount)),
                    ("lowered-refcounts", .number(loweredRefcountCount)),
                    ("rebuilt-refcount-table", .bool(rebuildsRefcountTable)),
                    ("changed-l2-tables", .number(UInt64(changedL2TableCount))),
                    ("changed-l1-table", .bool(changesL1Table || separatesActiveL1)),
                    ("rewritten-snapshot-table", .bool(rewritesSnapshotTable)),
                    ("dropped-snapshots", .number(UInt64(droppedSnapshotCount))),
                    ("kept-unreadable-snapshots", .number(UInt64(keptUnreadableSnapshotCount))),
                    ("cleared-bitmaps-bit", .bool(clearsBitmapsPromise)),
                    (
                        "cleared-marks",
                        .array(marks.filter { clearedMarks.contains($0.0) }.map { .string($0.1) })
                    ),
                ])
            ),
        ]
    }

    /// What was done or would be, for people.
    var sentences: [String] {
        guard remnants.isEmpty else { return remnantSentences }
        guard hasChanges else { return ["Nothing to repair."] + keptSentences }
        var parts: [String] = []
        if raisedRefcountCount > 0 { parts.append("\(raisedRefcountCount) refcounts raised") }
        if loweredRefcountCount > 0 { parts.append("\(loweredRefcountCount) refcounts lowered") }
        if rebuildsRefcountTable { parts.append("the refcount table rebuilt") }
        if changedL2TableCount > 0 { parts.append("the copied flags of \(changedL2TableCount) L2 tables corrected") }
        if changesL1Table { parts.append("the copied flags of the L1 table corrected") }
        if separatesActiveL1 { parts.append("the active L1 table separated from a snapshot's") }
        if rewritesSnapshotTable { parts.append("the snapshot table written anew") }
        if droppedSnapshotCount > 0 { parts.append("\(droppedSnapshotCount) unreadable snapshots dropped") }
        if clearsBitmapsPromise { parts.append("the bitmaps bit cleared") }
        if clearedMarks.contains(.dirty) { parts.append("the dirty mark cleared") }
        if clearedMarks.contains(.corrupt) { parts.append("the corrupt mark cleared") }
        return ["\(after == nil ? "Would repair" : "Repaired"): \(parts.joined(separator: ", "))."] + keptSentences
    }

    /// Why nothing was repaired, if freeing leaks would destroy something.
    private var remnantSentences: [String] {
        let counts = Remnant.Kind.allCases.compactMap { kind -> String? in
            let count = remnants.count { $0.kind == kind }
            guard count > 0 else { return nil }
            return "\(count) \(kind.phrase)\(count == 1 ? "" : "s")"
        }
        return remnants.prefix(16).map { "remnant: \($0.sentence)" } + [
            "Nothing was repaired: leaked clusters hold data that no state has (\(counts.joined(separator: ", "))).",
            "'qsnap inspect' shows what is left of snapshots; --discard-remnants frees it, for good.",
        ]
    }

    /// Why the snapshot table was left alone, if it was.
    private var keptSentences: [String] {
        guard keptUnreadableSnapshotCount > 0 else { return [] }
        let entries = keptUnreadableSnapshotCount == 1 ? "entry" : "entries"
        return [
            "\(keptUnreadableSnapshotCount) unreadable \(entries) of the snapshot table kept, and nothing freed; "
                + "--drop-unreadable-snapshots gives them up."
        ]
    }
}

extension Remnant {
    /// The remnant with the documented keys.
    fileprivate var json: JSON {
        .object([
            ("kind", .string(kind.rawValue)), ("offset", .number(offset.rawValue)),
            ("data-clusters", .number(dataClusterCount)), ("snapshot", snapshot.map(\.json) ?? .null),
        ])
    }

    fileprivate var sentence: String {
        let name = snapshot.map { " of snapshot '\($0.id)', named '\($0.name)'," } ?? ""
        guard dataClusterCount > 0 else {
            return "The \(kind.phrase)\(name) at \(offset) is not counted by the header."
        }
        let clusters = dataClusterCount == 1 ? "one cluster" : "\(dataClusterCount) clusters"
        return "The \(kind.phrase)\(name) at \(offset) leads to at least \(clusters) of data that no state has."
    }
}

extension Remnant.Kind {
    fileprivate var phrase: String {
        switch self {
        case .snapshotEntry: "snapshot table entry"
        case .l1Table: "L1 table"
        case .l2Table: "L2 table"
        }
    }
}
