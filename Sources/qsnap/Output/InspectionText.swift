// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension Inspection {
    /// What a person wants to know first, and the findings.
    func summary(path: String) -> String {
        var lines = ["\(printable(path)): \(description)"]
        if let openingError {
            lines.append("It can't be opened: \(printable(openingError.description))")
        }
        for kind in FeatureBit.Kind.allCases {
            let bits = features.filter { $0.kind == kind }
            guard !bits.isEmpty else { continue }
            let names = bits.map { "\(cell(($0.name ?? "bit \($0.bit)").utf8))\($0.isKnown ? "" : " (unknown)")" }
            lines.append("\(kind.rawValue.capitalizedASCII) features: \(names.joined(separator: ", "))")
        }
        if let backingFile {
            let format = backingFile.format.map { cell($0.utf8) } ?? "not given"
            lines.append("Backing file: \(cell(backingFile.nameBytes)) (format: \(format))")
        }
        if let clusters {
            let cut = clusters.isCut ? "; the search was cut" : ""
            let uncounted = clusters.referencedWithoutRefcount
            let without = uncounted > 0 ? " (\(uncounted) without a refcount)" : ""
            lines.append(
                "Clusters: \(clusters.total), of them \(clusters.referenced) in use\(without), \(clusters.leaked) leaked, "
                    + "\(clusters.free) free, \(clusters.freeWithData) of these with data\(cut)")
        }
        var text = lines.map { $0 + "\n" }.joined()
        text += Self.section("Tables", [["NAME", "OFFSET", "BYTES", "IN THE FILE"]] + tables.map(\.row))
        text += Self.section("Snapshots", [["AT"] + Snapshot.columnTitles] + snapshots.map(\.row))
        text += Self.section(
            "Deleted snapshots",
            [["AT", "IN"] + Snapshot.columnTitles + ["L1 TABLE", "L2 TABLES", "CONFIDENCE"]]
                + deletedSnapshots.map(\.row))
        text += Self.section(
            "Snapshots of images inside the file",
            [["AT", "IN"] + Snapshot.columnTitles + ["IMAGE AT", "CONFIDENCE"]] + nestedSnapshots.map(\.nestedRow))
        text += "\n" + findingsText
        return text
    }

    private var description: String {
        guard let version else { return hasMagic ? "qcow2, cut off in its header" : "not a qcow2 image" }
        let name = hasMagic ? "qcow2 version \(version)" : "like qcow2 version \(version), without the magic number"
        let parts = [
            name, "\(size(fileByteCount)) file", virtualSize.map { "\(size($0)) disk" },
            clusterSize.map { "\(size(UInt64($0))) clusters" }, refcountBits.map { "\($0)-bit refcounts" },
            encryptionMethod.flatMap { $0 == 0 ? nil : $0 == 1 ? "AES" : $0 == 2 ? "LUKS" : "encrypted" },
            compressionType == 1 ? "zstd" : nil,
        ]
        return parts.compactMap(\.self).joined(separator: ", ")
    }

    private static func section(_ title: String, _ rows: [[String]]) -> String {
        rows.count > 1 ? "\n\(title):\n" + table(rows) : ""
    }

    private var findingsText: String {
        guard !findings.isEmpty else { return "No findings.\n" }
        var text = "Findings:\n"
        for finding in findings {
            let place = finding.offset.map { " at \($0)" } ?? ""
            text += "\(finding.severity.rawValue) \(finding.code)\(place): \(printable(finding.message))"
            if let reason = finding.confidenceReason {
                text += " [\(finding.confidence.rawValue): \(printable(reason))]"
            }
            text += "\n"
        }
        for (code, count) in omittedFindings { text += "... and \(count) more of \(code)\n" }
        return text
    }

    /// How many findings of each code were counted but not kept, in the order of the codes.
    var omittedFindings: [(code: Finding.Code, count: UInt64)] {
        var kept: [Finding.Code: UInt64] = [:]
        for finding in findings { kept[finding.code, default: 0] += 1 }
        return findingCounts.map { (code: $0.key, count: $0.value - kept[$0.key, default: 0]) }
            .filter { $0.count > 0 }
            .sorted { $0.code.rawValue < $1.code.rawValue }
    }

    /// The fields, a line each: offset, bytes, name, value; long ones cut to their first bytes.
    var dumpText: String {
        var text = ""
        for structure in dump {
            text += "\(structure.offset) \(printable(structure.name))\n"
            for field in structure.fields {
                let shown = field.bytes.prefix(32)
                let rest = field.bytes.count > shown.count ? "... (\(field.bytes.count) bytes)" : ""
                let value = field.valueText
                text += "  \(field.offset)  \(hexadecimal(Array(shown)))\(rest)  \(printable(field.name))\(value)\n"
            }
        }
        return text + (isDumpCut ? "... and more, which is not shown.\n" : "")
    }
}

extension AnnotatedField {
    /// What the bytes say: a text or a number.
    fileprivate var valueText: String {
        if ["id", "name", "backing file name", "bitmap name"].contains(name) {
            return " = '\(cell(bytes))'"
        }
        return value.map { " = \($0)" } ?? ""
    }
}

extension Inspection.Table {
    fileprivate var row: [String] {
        [name, "\(offset)", "\(byteCount)", "\(presentByteCount)"]
    }
}

extension Inspection.SnapshotRecord {
    fileprivate var row: [String] { ["\(offset)"] + snapshot.columns }
}

extension Inspection.SnapshotRemnant {
    fileprivate var row: [String] {
        let tables = "\(survey.readableL2TableCount + survey.sharedL2TableCount)/\(survey.l2TableCount)"
        return ["\(offset)", place.rawValue] + snapshot.columns
            + [l1State.rawValue, l1State == .notLookedAt ? "-" : tables, confidence.rawValue]
    }

    fileprivate var nestedRow: [String] {
        ["\(offset)", place.rawValue] + snapshot.columns
            + [nestedImageOffset.map { "\($0)" } ?? "-", confidence.rawValue]
    }
}

extension String {
    /// The text with its first letter in upper case.
    fileprivate var capitalizedASCII: String { prefix(1).uppercased() + dropFirst() }
}
