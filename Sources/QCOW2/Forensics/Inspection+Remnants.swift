// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Says what the search found.
extension Inspection {
    mutating func reportRemnants() {
        if remnants.isFull {
            report(.searchCut, "Of the remnants of snapshots only the first \(RemnantCollector.limit) are kept.")
        }
        for remnant in deletedSnapshots {
            let snapshot = remnant.snapshot
            report(
                .deletedSnapshot,
                "In \(remnant.place.phrase) is the entry of a snapshot with the ID \(escaped(snapshot.idBytes)) and the "
                    + "name '\(escaped(snapshot.nameBytes))'; its L1 table \(remnant.survey.phrase).",
                at: remnant.offset, remnant.confidence, because: remnant.confidenceReason)
        }
        for remnant in nestedSnapshots {
            let snapshot = remnant.snapshot
            report(
                .nestedSnapshot,
                "In \(remnant.place.phrase) is the entry of a snapshot of another image, with the ID "
                    + "\(escaped(snapshot.idBytes)) and the name '\(escaped(snapshot.nameBytes))'.",
                at: remnant.offset, remnant.confidence, because: remnant.confidenceReason)
        }
        reportClusters()
        let known = Set(deletedSnapshots.map(\.l1TableOffset))
        for table in oldL1Tables where !known.contains(table.offset) {
            report(
                .oldL1Table,
                "In \(table.place.phrase) is what looks like an L1 table with \(table.usedEntryCount) entries: of a "
                    + "deleted snapshot, or of an earlier state of the disk.",
                at: table.offset, table.confidence, because: table.confidenceReason)
        }
    }

    private mutating func reportClusters() {
        guard let clusters else { return }
        let doubt =
            clusters.areReferencesKnown ? nil : "some tables can't be read, and what they refer to counts as unused"
        let confidence: Finding.Confidence = doubt == nil ? .confirmed : .unconfirmed
        if clusters.leaked > 0 {
            let start = "\(clusters.leaked) clusters have a refcount, but "
            if clusters.areReferencesKnown {
                report(.leakedClusters, start + "nothing refers to them.")
            } else {
                report(
                    .referencesUnknown, start + "no known reference; what couldn't be read may refer to them.",
                    confidence, because: doubt)
            }
        }
        if clusters.freeWithData > 0 {
            report(
                .freeClustersWithData,
                "\(clusters.freeWithData) free clusters aren't zero: what was deleted may still be in them.",
                confidence, because: doubt)
        }
        if clusters.referencedWithoutRefcount > 0 {
            report(
                .clustersUncounted,
                "\(clusters.referencedWithoutRefcount) clusters in use have the refcount 0: the next writer may give "
                    + "them to something else.", at: firstUncounted)
        }
    }
}

extension Inspection.Place {
    fileprivate var phrase: String {
        switch self {
        case .free: "a free cluster"
        case .leaked: "a leaked cluster"
        case .slack: "the slack of a table"
        case .guestData: "the data of a guest"
        case .unknown: "the file"
        }
    }
}

extension Inspection.TreeSurvey {
    /// What was looked at, and what was seen, behind "its L1 table".
    var phrase: String {
        let part = "\(readableL1ClusterCount) of \(l1ClusterCount) clusters"
        switch l1State {
        case .notLookedAt:
            return isComplete || l1ClusterCount == 0 ? "was not looked at" : "was not looked at as a whole"
        case .readable: return "is still there; \(l2Phrase)"
        case .cut: return "is cut off by the end of the file; \(l2Phrase)"
        case .overwritten: return "was overwritten in part, and \(part) of it are still there; \(l2Phrase)"
        case .reused: return "was overwritten by something in use"
        case .empty: return l1ClusterCount == 0 ? "has no entries" : "holds nothing but zeros"
        case .lost: return "is gone: there is something else, or the file ends before it"
        }
    }

    private var l2Phrase: String {
        var parts: [String] = []
        func add(_ count: UInt64, _ what: String) { if count > 0 { parts.append("\(count) \(what)") } }
        add(readableL2TableCount, "are readable")
        add(sharedL2TableCount, "are in use by a state")
        add(overwrittenL2TableCount, "were overwritten")
        add(cutL2TableCount, "lie past the end of the file")
        let seen = readableL2TableCount + sharedL2TableCount + overwrittenL2TableCount + cutL2TableCount
        add(l2TableCount - seen, "were not looked at")
        var text = "of its \(l2TableCount) L2 tables \(parts.joined(separator: ", "))"
        if readableL2TableCount > 0 {
            text +=
                "; of the clusters of data below the readable ones nothing refers to \(unreferencedDataClusterCount), "
                + "something to \(referencedDataClusterCount), and what they hold was not looked at"
        }
        return text
    }
}
