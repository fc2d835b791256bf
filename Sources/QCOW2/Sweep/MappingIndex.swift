// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The L2 tables of all trees, found by a tolerant walk over all L1 tables that notes what is wrong with their entries.
///
/// The old weight of a table counts all references, the new one those of snapshots.
struct MappingIndex {
    let l2Tables: L2Tables
    /// By the table's index, the index of some L1 entry that points to it.
    private(set) var firstL1Indices: [UInt32] = []
    /// Whether an L1 entry had to be left out, so that what is below it is unknown.
    private(set) var isComplete = true

    /// Walks the L1 tables.
    ///
    /// Invariants I-7, I-8, I-11 and I-15.
    init<S: Storage & ~Copyable>(
        _ subject: ImageReading, _ claims: TableClaims, reading storage: borrowing S, _ sink: FindingSink,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let (geometry, bounds) = (subject.geometry, subject.bounds)
        let stretches = L1Stretches(subject.l1Parts)
        var indices: [UInt32] = []
        var isComplete = true
        // By table, the last stretch that an entry pointed to it from; numbered from one.
        var lastStretch: [UInt32] = []
        l2Tables = try L2Tables(stretches, reading: storage, &work) { entry in
            guard let offset = entry.l2Table, geometry.isAligned(offset), offset.rawValue < bounds.byteCount else {
                return nil
            }
            return offset
        } note: { (number, index, entry, table) throws(QCOW2Error) in
            let place = Place(stretch: stretches.stretches[number], index: index, subject: subject)
            if entry.hasReservedBits {
                place.add(
                    .l1EntryReservedBits, sink, "has reserved bits set: 0x\(String(entry.rawValue, radix: 16))")
            }
            guard let table else {
                isComplete = false
                return place.add(.l1EntryInvalid, sink, Self.reason(entry, geometry))
            }
            if table >= indices.count {
                let missing = max(table + 1 - indices.count, indices.count)
                indices.append(contentsOf: repeatElement(0, count: missing))
                lastStretch.append(contentsOf: repeatElement(0, count: missing))
            }
            if lastStretch[table] == 0 { indices[table] = UInt32(truncatingIfNeeded: place.number) }
            if lastStretch[table] == UInt32(number + 1), let offset = entry.l2Table {
                place.add(.l2TableTwiceInTree, sink, "points to the L2 table at \(offset), as another does")
            }
            lastStretch[table] = UInt32(number + 1)
        }
        firstL1Indices = indices
        self.isComplete = isComplete
        for index in 0..<l2Tables.count {
            let offset = l2Tables[index].offset
            guard let owner = claims.owner(of: ClusterRun(first: geometry.cluster(at: offset), count: 1)) else {
                continue
            }
            sink.add(.tablesOverlap, at: offset, in: "L2 table", "An L2 table lies in the \(owner.name).")
        }
    }

    /// Why an entry can't be followed.
    private static func reason(_ entry: L1Entry, _ geometry: ImageGeometry) -> String {
        switch entry.l2Table {
        case nil: "says that the L2 table lies in the header's cluster"
        case .some(let offset) where !geometry.isAligned(offset): "points to \(offset), where no cluster starts"
        case .some(let offset): "points to \(offset), past the end of the file"
        }
    }

    /// An L1 entry.
    private struct Place {
        let stretch: L1Stretches.Stretch
        let index: Int
        let subject: ImageReading

        /// Its index in the table.
        var number: Int { stretch.firstIndex + index }

        func add(_ rule: FindingRule, _ sink: FindingSink, _ what: @autoclosure () -> String) {
            let tree = subject.trees[stretch.tree]
            sink.add(
                rule, at: stretch.offset.saturating(adding: UInt64(index * L1Entry.byteCount)), in: tree.name,
                index: UInt64(number), "Entry \(number) of the \(tree.name) \(what()).")
        }
    }
}

extension ImageReading {
    /// The L1 tables: all count for the file as it is, and those of snapshots for what snapshots refer to.
    var l1Parts: [L1Part] {
        trees.enumerated().map { index, tree in
            L1Part(
                offset: tree.offset, entryCount: tree.entryCount, newWeight: index == 0 ? 0 : 1, isActive: index == 0,
                tree: index)
        }
    }
}
