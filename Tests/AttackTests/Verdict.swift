// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// What can be said of an image: the findings of two checkers, and the content of every state.
struct Verdict {
    /// How many findings of each code our own check has, notices left out; `nil` when it can't check.
    private(set) var findings: [String: Int]?
    /// Whether our own check could look at everything: what it had to leave out is no finding.
    private(set) var isComplete = false
    /// How many leaks our own check counts; also those behind the end of the file, which QEMU counts once it has grown.
    private(set) var leakCount = 0
    /// What `qemu-img check` counts; `nil` when it can't check, or takes too long.
    private(set) var qemu: (corruptions: Int, leaks: Int)?
    /// The SHA-256 of every state that can be read, by `active` or by the snapshot's ID and name.
    private(set) var states: [String: String] = [:]

    init(of path: String, in folder: TemporaryFolder) throws {
        let check = try LimitedCommand(LimitedCommand.qsnap, ["check", "--json", path], in: folder)
        if let codes = check.json?["codes"] as? [[String: Any]], check.status != 1 {
            let counted = codes.filter { $0["severity"] as? String != "notice" }
            isComplete = check.json?["complete"] as? Bool ?? false
            leakCount = codes.reduce(0) {
                $0 + ($1["severity"] as? String == "leak" ? $1["count"] as? Int ?? 0 : 0)
            }
            findings = Dictionary(
                counted.map { ($0["code"] as? String ?? "", $0["count"] as? Int ?? 0) }, uniquingKeysWith: +)
        }
        if let qemuImg = Tool.path(of: "qemu-img") {
            let theirs = try LimitedCommand(
                qemuImg, ["check", "--output=json", "-f", "qcow2", path], .init(seconds: 2), in: folder)
            if let json = theirs.json, [0, 2, 3].contains(theirs.status), json["check-errors"] as? Int == 0 {
                qemu = (json["corruptions"] as? Int ?? 0, json["leaks"] as? Int ?? 0)
            }
        }
        // What is too large to read in a second is left out.
        var hashes = try LimitedCommand(
            LimitedCommand.qsnap, ["hash", "--all", "--json", path], .init(seconds: 1), in: folder)
        if hashes.status != 0 {
            hashes = try LimitedCommand(LimitedCommand.qsnap, ["hash", "--json", path], .init(seconds: 1), in: folder)
        }
        guard hashes.status == 0 else { return }
        let all = hashes.json?["states"] as? [[String: Any]] ?? []
        states = Dictionary(
            all.map { ($0["state"] as? String ?? "", $0["sha256"] as? String ?? "") }, uniquingKeysWith: { _, _ in "" })
    }

    /// What a verb made worse.
    ///
    /// Where the verb lets another tree refer to what was damaged before, counts may rise, but nothing new may come up.
    func breaches(after: Verdict, _ verb: AttackVerb) -> [(AttackClass, String)] {
        var breaches: [(AttackClass, String)] = []
        if let findings {
            guard let later = after.findings else { return [(.newFindings, "can't be checked any more")] }
            for (code, count) in later.sorted(by: { $0.key < $1.key }) {
                let before = findings[code] ?? 0
                // What a repair made it possible to look at may turn out to be wrong.
                guard isComplete || !verb.isRepair else { continue }
                if before == 0 || (count > before && !verb.addsTree) {
                    breaches.append((.newFindings, "\(code) \(before) -> \(count)"))
                }
            }
        }
        if let qemu {
            guard let later = after.qemu else { return breaches + [(.newFindingsForQEMU, "can't be checked any more")] }
            for (kind, before, count) in [
                ("corruptions", qemu.corruptions, later.corruptions),
                ("leaks", max(qemu.leaks, leakCount), later.leaks),
            ] where before == 0 && count > 0 || count > before && !verb.addsTree {
                breaches.append((.newFindingsForQEMU, "\(kind) \(before) -> \(count)"))
            }
        }
        for (state, hash) in states.sorted(by: { $0.key < $1.key }) where !hash.isEmpty && !verb.touches(state) {
            if after.states[state] != hash {
                breaches.append(
                    (.stateChanged, "\(state): \(hash.prefix(8)) -> \(after.states[state]?.prefix(8) ?? "unreadable")"))
            }
        }
        return breaches
    }
}
