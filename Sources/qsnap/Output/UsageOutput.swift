// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension StateUsage {
    static let columnTitles = ["DISK SIZE", "MAPPED", "ONLY HERE", "SHARED"]

    var columns: [String] {
        [size(virtualSize), size(mappedByteCount), size(exclusiveByteCount), size(sharedByteCount)]
    }

    /// The documented keys.
    var jsonMembers: [(String, JSON)] {
        [
            ("disk-size", .number(virtualSize)), ("mapped-bytes", .number(mappedByteCount)),
            ("exclusive-bytes", .number(exclusiveByteCount)), ("shared-bytes", .number(sharedByteCount)),
            ("compressed-bytes", .number(compressedByteCount)),
            ("compressed-stored-bytes", .number(compressedStoredByteCount)),
        ]
    }
}

extension FileUsage {
    /// A line for the file, and one for each kind of content.
    var text: String {
        var lines = [["File", size(byteCount), allocatedByteCount.map { "\(size($0)) allocated on the host" } ?? ""]]
        lines.append(["Data", size(dataByteCount), ""])
        let kinds = metadata.parts.filter { $0.byteCount > 0 }.map { "\($0.name) \(size($0.byteCount))" }
        lines.append(["Metadata", size(metadata.total), kinds.joined(separator: ", ")])
        lines.append(["Free inside", size(freeByteCount), ""])
        if leakedByteCount > 0 {
            lines.append(["Leaked", size(leakedByteCount), "qsnap check --repair leaks frees it"])
        }
        return table(lines)
    }

    var json: JSON {
        .object([
            ("file-size", .number(byteCount)),
            ("allocated-bytes", allocatedByteCount.map { .number($0) } ?? .null),
            ("data-bytes", .number(dataByteCount)),
            ("metadata-bytes", .number(metadata.total)),
            ("metadata", .object(metadata.parts.map { ($0.key, .number($0.byteCount)) })),
            ("free-bytes", .number(freeByteCount)),
            ("leaked-bytes", .number(leakedByteCount)),
        ])
    }
}

extension MetadataUsage {
    fileprivate var parts: [(name: String, key: String, byteCount: UInt64)] {
        [
            ("header", "header", header),
            ("active L1 table", "active-l1-table", activeL1Table),
            ("snapshots' L1 tables", "snapshot-l1-tables", snapshotL1Tables),
            ("L2 tables", "l2-tables", l2Tables),
            ("refcount table", "refcount-table", refcountTable),
            ("refcount blocks", "refcount-blocks", refcountBlocks),
            ("snapshot table", "snapshot-table", snapshotTable),
            ("bitmaps", "bitmaps", bitmaps),
            ("encryption", "encryption", encryption),
        ]
    }
}
