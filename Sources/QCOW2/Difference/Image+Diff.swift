// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Finds the ranges of the disk that may differ between two states, by comparing where they are stored.
    ///
    /// No data is read, so a range that was rewritten with the same bytes counts as changed, and two states that differ
    /// somewhere always have that place in an extent. Costs both L1 tables, and the L2 tables that differ: what both
    /// states share is skipped without a look. Needs neither backing files nor encryption keys, and changes nothing.
    ///
    /// Zeros equal what isn't allocated, unless there is a backing file, which shows through the latter. Where the
    /// disks have different sizes, all that only the later one has is changed, and what only the earlier one has is
    /// ``ChangedExtent/Kind/gone``. VM state isn't compared.
    ///
    /// - Parameters:
    ///   - old: The earlier state; without one, the later is compared with a disk of its size that is all zeros.
    ///   - new: The later state.
    ///   - progress: Called between batches of work; when it returns false the comparison stops.
    ///   - body: Gets the extents in the order of the disk, neighbours of one kind joined.
    /// - Returns: Sizes and sums.
    /// - Throws: ``QCOW2Error`` with the code `noSuchSnapshot`, `ambiguousSnapshot`, `corrupt`, `unsupported` for an
    ///   external data file, `inputOutput` or `cancelled`; and what `body` throws.
    @discardableResult
    public func diff(
        from old: DiskState?, to new: DiskState = .active, progress: (@Sendable (Progress) -> Bool)? = nil,
        _ body: (ChangedExtent) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> DiskDifference {
        try checkDataIsHere()
        let newTree = try tree(of: new)
        let oldTree = try old.map { (state) throws(QCOW2Error) in try tree(of: state) }
        var work = WorkMeter(progress)
        let oldSize = oldTree?.virtualSize ?? 0
        let common = oldTree == nil ? newTree.virtualSize : min(oldSize, newTree.virtualSize)
        let bounds = FileBounds(byteCount: try storage.byteCount())
        let comparison = L2TableDifference(
            header.geometry, hasBackingFile: hasBackingFile, fileByteCount: bounds.byteCount)
        var olds = L2TableCursor(
            try oldTree.map { (tree) throws(QCOW2Error) in try l1Table(of: tree, bounds) } ?? [], in: header.geometry)
        var news = L2TableCursor(try l1Table(of: newTree, bounds), in: header.geometry)
        return try withoutActuallyEscaping(body) { (body) throws(QCOW2Error) -> DiskDifference in
            var sink = ChangedExtentSink(DiskDifference(oldSize: oldSize, newSize: newTree.virtualSize), body)
            try compare(
                oldTree == nil ? .zeros : .table, &olds, &news, 0..<common, comparison, &sink, &work)
            try compare(.nothing, &olds, &news, common..<newTree.virtualSize, comparison, &sink, &work)
            if oldSize > newTree.virtualSize { try sink.add(newTree.virtualSize..<oldSize, .gone) }
            try sink.finish()
            return sink.difference
        }
    }

    private func l1Table(of tree: StateTree, _ bounds: FileBounds) throws(QCOW2Error) -> [L1Entry] {
        let bytes = try storage.readBytes(Int(tree.l1EntryCount) * L1Entry.byteCount, at: tree.l1TableOffset)
        let entries = L1Entry.decodeTable(bytes.span)
        for (index, entry) in entries.enumerated() where entry.rawValue != 0 {
            let place = tree.l1TableOffset.saturating(adding: UInt64(index * L1Entry.byteCount))
            try entry.check(index, at: place, header.geometry, bounds)
        }
        return entries
    }

    /// Compares what lies below those L1 entries that differ.
    private func compare(
        _ origin: L2TableDifference.Origin, _ olds: inout L2TableCursor, _ news: inout L2TableCursor,
        _ range: Range<UInt64>, _ comparison: L2TableDifference, _ sink: inout ChangedExtentSink,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let span = header.geometry.clusterSize * UInt64(header.geometry.l2EntryCount)
        let (oldOffsets, newOffsets) = (olds, news)
        let isTable = origin == .table
        func isWanted(_ index: Int) -> Bool { !isTable || oldOffsets.offset(at: index) != newOffsets.offset(at: index) }
        // Behind the last L1 entry nothing is allocated, in however large a disk. Safe: at most 2^22 entries of 2^39.
        let limit = UInt64(isTable ? max(olds.count, news.count) : news.count) * span
        let mapped = range.clamped(to: 0..<limit)
        let unallocated: ChangedExtent.Kind? =
            switch origin {
            case .table: nil
            case .zeros: comparison.hasBackingFile ? .backing : nil
            case .nothing: comparison.hasBackingFile ? .backing : .zero
            }
        var old = L2TableDifference.Table()
        var new = L2TableDifference.Table()
        for index in Int(mapped.lowerBound / span)..<Int((mapped.upperBound + span - 1) / span)
        where !mapped.isEmpty && isWanted(index) {
            let start = UInt64(index) * span
            let part = mapped.clamped(to: start..<(start + span))
            if !isTable, news.offset(at: index) == nil {
                if let unallocated { try sink.add(part, unallocated) }
                continue
            }
            if isTable { try olds.load(index, into: &old, from: storage, where: isWanted) }
            try news.load(index, into: &new, from: storage, where: isWanted)
            try comparison.compare(origin, old, new, from: start, in: part, &sink)
            try work.advance(by: header.geometry.clusterSize)
        }
        let behind = range.clamped(to: limit..<UInt64.max)
        if let unallocated { try sink.add(behind, unallocated) }
    }
}
