// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The snapshot table.
extension ImageReading {
    /// Invariants I-25 to I-28.
    mutating func readSnapshots<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard header.snapshotCount > 0 else { return }
        // The header's check says so.
        guard geometry.isAligned(header.snapshotTableOffset), header.snapshotTableOffset.rawValue != 0 else {
            isComplete = false
            return
        }
        var rules = SnapshotRules(header: header)
        do throws(QCOW2Error) {
            var reader = try SnapshotTableReader(header, bounds)
            defer { snapshotTableByteCount = UInt64(reader.byteCount) }
            for _ in 0..<Int(min(header.snapshotCount, Header.maximumSnapshotCount)) {
                try addSnapshot(try reader.next(from: storage), &rules, sink)
            }
            if header.snapshotCount > Header.maximumSnapshotCount { isComplete = false }
        } catch  where error.code == .corrupt {
            // Where the next entry starts is unknown, too.
            try sink.note(.snapshotTableInvalid, error, in: "snapshot table", index: UInt64(snapshotCount))
            isComplete = false
        }
        _ = try addTable(
            .snapshotTable, Header.Layout.snapshotsOffset.name, at: header.snapshotTableOffset, snapshotTableByteCount,
            from: Header.Layout.snapshotsOffset.place, sink)
    }

    private static let snapshotL1Field = "l1_table_offset of a snapshot"

    /// How many entries of the snapshot table could be read.
    private var snapshotCount: Int { snapshots.count + unusableSnapshots.count }

    private mutating func addSnapshot(
        _ found: SnapshotTableReader.Found, _ rules: inout SnapshotRules, _ sink: FindingSink
    ) throws(QCOW2Error) {
        let entry = found.entry
        // None of these rules forbids to open the image, and they cost a look at every name.
        if sink.tolerance != .strict {
            if rules.check(found, sink) { needsSnapshotTable = true }
            if rules.hidesReferences { isComplete = false }
        }
        var isUsable = true
        do throws(QCOW2Error) {
            try entry.checkL1Table(at: found.offset, in: geometry)
            guard entry.l1EntryCount == 0 || entry.l1TableOffset.rawValue < bounds.byteCount else {
                throw .beyondEnd(Self.snapshotL1Field, entry.l1TableOffset, at: found.offset)
            }
        } catch  where error.code == .corrupt {
            try sink.note(.snapshotEntryInvalid, error, in: "snapshot table", index: UInt64(found.index))
            isUsable = false
            isComplete = false
        }
        var tree: Tree?
        if isUsable {
            tree = try addTree(
                Self.snapshotL1Field, at: entry.l1TableOffset, entryCount: UInt64(entry.l1EntryCount),
                from: found.offset, snapshotID: entry.id, sink)
        }
        guard let tree else {
            unusableSnapshots.append(found)
            return
        }
        snapshots.append(found)
        trees.append(tree)
    }
}
