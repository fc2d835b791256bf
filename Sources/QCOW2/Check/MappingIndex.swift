// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The L2 tables of all trees, with their weights, found by a tolerant walk over all L1 tables.
///
/// The old weight of a table counts all references, the new one those of snapshots.
struct MappingIndex {
    private(set) var l2Tables = L2Tables()
    /// Whether an L1 entry had to be left out, so that what is below it is unknown.
    private(set) var isComplete = true
    private let subject: CheckSubject
    private let segments: L1Segments

    private var geometry: ImageGeometry { subject.geometry }

    init<S: Storage & ~Copyable>(
        _ subject: CheckSubject, _ claims: TableClaims, reading storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        self.subject = subject
        segments = L1Segments(subject.trees)
        try collect(storage)
        try weigh(storage, sink)
        for index in 0..<l2Tables.count {
            let offset = l2Tables[index].offset
            let run = ClusterRun(first: subject.geometry.cluster(at: offset), count: 1)
            guard let owner = claims.owner(of: run) else { continue }
            sink.add(.tablesOverlap, at: offset, in: "L2 table", "An L2 table lies in the \(owner.name).")
        }
    }

    /// The L2 table that an entry points to, if it can be read.
    private func table(of entry: L1Entry) -> HostOffset? {
        guard let offset = entry.l2Table, geometry.isAligned(offset), offset.rawValue < subject.bounds.byteCount else {
            return nil
        }
        return offset
    }

    private mutating func collect<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        var pending: [HostOffset] = []
        var found = l2Tables
        let segments = segments
        try segments.forEachEntry(reading: storage) { (_, _, entry) throws(QCOW2Error) in
            guard let offset = table(of: entry), pending.last != offset else { return }
            pending.append(offset)
            // Ever larger batches, so that all the sorting together takes as long as the last one.
            if pending.count >= max(1 << 16, found.count) {
                found.insert(pending)
                pending.removeAll(keepingCapacity: true)
            }
        }
        found.insert(pending)
        l2Tables = found
    }

    private mutating func weigh<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        var tables = l2Tables
        var isComplete = true
        let segments = segments
        // By table, the last segment that an entry pointed to it from.
        var lastSegment = [UInt32](repeating: 0, count: tables.count)
        var hint = 0
        try segments.forEachEntry(reading: storage) { (number, index, entry) throws(QCOW2Error) in
            let segment = segments.segments[number]
            if !report(entry, segment, index, sink) { isComplete = false }
            guard let offset = table(of: entry), let found = tables.index(of: offset, near: hint) else { return }
            hint = found + 1
            var table = tables[found]
            if table.oldWeight == 0 { table.firstL1Index = UInt32(truncatingIfNeeded: segment.firstIndex + index) }
            let weight = segment.snapshotWeight + (segment.isActive ? 1 : 0)
            table.oldWeight = Self.sum(table.oldWeight, weight)
            table.newWeight = Self.sum(table.newWeight, segment.snapshotWeight)
            if segment.isActive { table.isActive = true }
            tables[found] = table
            if lastSegment[found] == UInt32(number + 1) {
                add(.l2TableTwiceInTree, segment, index, sink, "points to the L2 table at \(offset), as another does")
            }
            lastSegment[found] = UInt32(number + 1)
        }
        l2Tables = tables
        self.isComplete = isComplete
    }

    private static func sum(_ left: UInt32, _ right: UInt32) -> UInt32 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }

    private func add(
        _ rule: CheckRule, _ segment: L1Segments.Segment, _ index: Int, _ sink: FindingSink,
        _ what: @autoclosure () -> String
    ) {
        let number = segment.firstIndex + index
        sink.add(
            rule, at: segment.offset.saturating(adding: UInt64(index * L1Entry.byteCount)), in: segment.tree.name,
            index: UInt64(number), "Entry \(number) of the \(segment.tree.name) \(what()).")
    }

    /// Notes what is wrong with an L1 entry.
    ///
    /// Invariants I-7, I-8 and I-11.
    ///
    /// - Returns: Whether it can be followed.
    private func report(
        _ entry: L1Entry, _ segment: L1Segments.Segment, _ index: Int, _ sink: FindingSink
    ) -> Bool {
        if entry.hasReservedBits {
            add(
                .l1EntryReservedBits, segment, index, sink,
                "has reserved bits set: 0x\(String(entry.rawValue, radix: 16))")
        }
        if table(of: entry) != nil { return true }
        let why =
            switch entry.l2Table {
            case nil: "says that the L2 table lies in the header's cluster"
            case .some(let offset) where !geometry.isAligned(offset): "points to \(offset), where no cluster starts"
            case .some(let offset): "points to \(offset), past the end of the file"
            }
        add(.l1EntryInvalid, segment, index, sink, why)
        return false
    }
}
