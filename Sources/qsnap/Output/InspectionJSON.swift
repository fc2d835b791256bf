// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension Inspection {
    /// Everything, with the documented keys.
    func json(path: String) -> JSON {
        .object([
            ("image", .string(path)),
            ("file-size", .number(fileByteCount)),
            ("magic", .bool(hasMagic)),
            ("opening-error", openingError.map(\.json) ?? .null),
            ("version", .optional(version.map { UInt64($0) })),
            ("virtual-size", .optional(virtualSize)),
            ("cluster-size", .optional(clusterSize.map { UInt64($0) })),
            ("refcount-bits", .optional(refcountBits.map { UInt64($0) })),
            ("encryption-method", .optional(encryptionMethod.map { UInt64($0) })),
            ("compression-type", .optional(compressionType.map { UInt64($0) })),
            ("features", .array(features.map(\.json))),
            ("extensions", .array(extensions.map(\.json))),
            ("backing-file", backingFile.map(\.json) ?? .null),
            ("tables", .array(tables.map(\.json))),
            ("clusters", clusters.map(\.json) ?? .null),
            ("snapshots", .array(snapshots.map(\.json))),
            ("deleted-snapshots", .array(deletedSnapshots.map(\.json))),
            ("nested-snapshots", .array(nestedSnapshots.map(\.json))),
            ("old-l1-tables", .array(oldL1Tables.map(\.json))),
            ("findings", .array(findings.map(\.json))),
            ("findings-omitted", .object(omittedFindings.map { ($0.code.rawValue, .number($0.count)) })),
            ("dump", .array(dump.map(\.json))),
            ("dump-cut", .bool(isDumpCut)),
        ])
    }
}

extension JSON {
    /// A number, or null.
    static func optional(_ number: UInt64?) -> JSON { number.map { .number($0) } ?? .null }

    /// Text, or null.
    static func optional(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }
}

extension QCOW2Error {
    fileprivate var json: JSON {
        .object([
            ("code", .string("\(code)")), ("message", .string(message)), ("offset", .optional(offset?.rawValue)),
        ])
    }
}

extension Inspection.FeatureBit {
    fileprivate var json: JSON {
        .object([
            ("kind", .string(kind.rawValue)), ("bit", .number(UInt64(bit))), ("name", .optional(name)),
            ("known", .bool(isKnown)),
        ])
    }
}

extension Inspection.ExtensionRecord {
    fileprivate var json: JSON {
        .object([
            ("type", .number(UInt64(type))), ("name", .optional(name)), ("offset", .number(offset.rawValue)),
            ("length", .number(UInt64(claimedByteCount))), ("data", .string(hexadecimal(data))),
        ])
    }
}

extension Inspection.BackingFileName {
    fileprivate var json: JSON {
        .object([
            ("offset", .number(offset.rawValue)), ("name", .string(name)),
            ("name-hex", .string(hexadecimal(nameBytes))), ("format", .optional(format)),
        ])
    }
}

extension Inspection.Table {
    fileprivate var json: JSON {
        .object([
            ("name", .string(name)), ("offset", .number(offset.rawValue)), ("size", .number(byteCount)),
            ("size-in-file", .number(presentByteCount)),
        ])
    }
}

extension Inspection.ClusterSummary {
    fileprivate var json: JSON {
        .object([
            ("total", .number(total)), ("in-use", .number(referenced)), ("leaked", .number(leaked)),
            ("free", .number(free)), ("free-with-data", .number(freeWithData)),
            ("in-use-without-refcount", .number(referencedWithoutRefcount)),
            ("references-known", .bool(areReferencesKnown)),
            ("cut", .bool(isCut)),
        ])
    }
}

extension Inspection.SnapshotRecord {
    fileprivate var json: JSON {
        .object([
            ("index", .number(UInt64(index))), ("offset", .number(offset.rawValue)),
            ("l1-table-offset", .number(l1TableOffset.rawValue)), ("l1-size", .number(UInt64(l1EntryCount))),
            ("snapshot", snapshot.json),
        ])
    }
}

extension Inspection.SnapshotRemnant {
    fileprivate var json: JSON {
        .object([
            ("offset", .number(offset.rawValue)), ("place", .string(place.rawValue)),
            ("copies", .number(UInt64(copyCount))), ("l1-table-offset", .number(l1TableOffset.rawValue)),
            ("l1-size", .number(UInt64(l1EntryCount))), ("l1-state", .string(l1State.rawValue)),
            ("tables", survey.json), ("confidence", .string(confidence.rawValue)),
            ("confidence-reason", .string(confidenceReason)),
            ("nested-image-at", .optional(nestedImageOffset?.rawValue)),
            ("snapshot", snapshot.json),
        ])
    }
}

extension Inspection.TableRemnant {
    fileprivate var json: JSON {
        .object([
            ("offset", .number(offset.rawValue)), ("place", .string(place.rawValue)),
            ("used-entries", .number(UInt64(usedEntryCount))), ("confidence", .string(confidence.rawValue)),
            ("confidence-reason", .string(confidenceReason)),
        ])
    }
}

extension Inspection.TreeSurvey {
    fileprivate var json: JSON {
        .object([
            ("l1-clusters", .number(l1ClusterCount)), ("readable-l1-clusters", .number(readableL1ClusterCount)),
            ("l2-tables", .number(l2TableCount)), ("readable-l2-tables", .number(readableL2TableCount)),
            ("shared-l2-tables", .number(sharedL2TableCount)),
            ("overwritten-l2-tables", .number(overwrittenL2TableCount)),
            ("cut-l2-tables", .number(cutL2TableCount)),
            ("unreferenced-data-clusters", .number(unreferencedDataClusterCount)),
            ("referenced-data-clusters", .number(referencedDataClusterCount)), ("complete", .bool(isComplete)),
        ])
    }
}

extension Inspection.AnnotatedStructure {
    fileprivate var json: JSON {
        .object([
            ("name", .string(name)), ("offset", .number(offset.rawValue)),
            (
                "fields",
                .array(
                    fields.map { field in
                        .object([
                            ("name", .string(field.name)), ("offset", .number(field.offset.rawValue)),
                            ("bytes", .string(hexadecimal(field.bytes))), ("value", .optional(field.value)),
                        ])
                    })
            ),
        ])
    }
}
