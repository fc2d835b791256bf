// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an image is, compared with what a manifest says.
struct ManifestComparison {
    enum Outcome: String {
        case same, different, missing
        case new = "not in the manifest"
    }

    struct Row {
        let key: String
        let outcome: Outcome
        /// What differs, by its name in the manifest; `content` and `vm-state` are hashes.
        var differences: [String] = []

        var isContainer: Bool { key == Manifest.Entry.container }
    }

    /// The manifest's entries in their order, and then states that it doesn't have.
    let rows: [Row]
    /// What was not compared, by the names in the manifest.
    let uncovered: [String]

    /// Compares a manifest with what was found.
    ///
    /// Snapshots may share an ID and a name; those are compared in their order.
    init(_ manifest: Manifest, with found: [Manifest.Entry], statesOnly: Bool) {
        var places: [String: [Int]] = [:]
        for index in found.indices.reversed() { places[found[index].key, default: []].append(index) }
        var rows: [Row] = []
        var isKnown = [Bool](repeating: false, count: found.count)
        for entry in manifest.entries where !(entry.isContainer && statesOnly) {
            guard let index = places[entry.key]?.popLast() else {
                rows.append(Row(key: entry.key, outcome: .missing))
                continue
            }
            isKnown[index] = true
            let differences = Self.differences(entry, found[index], isOldForm: manifest.isOldForm)
            rows.append(
                Row(key: entry.key, outcome: differences.isEmpty ? .same : .different, differences: differences))
        }
        rows += found.indices.filter { !isKnown[$0] && !found[$0].isContainer }.map {
            Row(key: found[$0].key, outcome: .new)
        }
        self.rows = rows
        let container = manifest.hasContainer && !statesOnly ? [] : ["container"]
        uncovered =
            container + (manifest.isOldForm ? ["date", "vm-state", "vm-state-size", "vm-clock-nsec", "icount"] : [])
            + ["other-files"]
    }

    private static func differences(_ wanted: Manifest.Entry, _ found: Manifest.Entry, isOldForm: Bool) -> [String] {
        var names = wanted.facts.filter { found[$0.name] != $0.value }.map(\.name)
        if wanted.content != found.content { names.insert("content", at: 0) }
        if !isOldForm, wanted.vmState != found.vmState { names.append("vm-state") }
        return names
    }

    /// States that aren't what the manifest says, and how many there are in all.
    var differentCount: Int { states.filter { $0.outcome == .different || $0.outcome == .missing }.count }
    var newCount: Int { states.filter { $0.outcome == .new }.count }
    var stateCount: Int { states.count }
    private var states: [Row] { rows.filter { !$0.isContainer } }

    /// Whether the image file was compared, and isn't the one that the manifest was made of.
    var hasOtherContainer: Bool { rows.contains { $0.isContainer && $0.outcome != .same } }

    /// What a person should know about the limits of the verdict.
    var limits: String {
        var parts: [String] = []
        if uncovered.contains("container") {
            parts.append("the image file itself, with bitmaps, clusters that no state uses, and the snapshots' order")
        }
        if uncovered.contains("date") { parts.append("VM states, dates, clocks and instruction counts") }
        parts.append("other files, but for what shows through from them")
        return "Not compared: \(parts.joined(separator: "; "))."
    }
}
