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
        return try withoutActuallyEscaping(body) { (body) throws(QCOW2Error) -> DiskDifference in
            var sink = ChangedExtentSink(DiskDifference(oldSize: oldSize, newSize: newTree.virtualSize), body)
            try compare(
                oldTree == nil ? .zeros : .table, oldTree, newTree, 0..<common, comparison, bounds, &sink, &work)
            try compare(.nothing, nil, newTree, common..<newTree.virtualSize, comparison, bounds, &sink, &work)
            if oldSize > newTree.virtualSize { try sink.add(newTree.virtualSize..<oldSize, .gone) }
            try sink.finish()
            return sink.difference
        }
    }

    /// How many entries of an L1 table are held at once.
    private static var l1WindowCount: Int { 1 << 16 }

    /// The L2 tables below a part of a state's L1 table.
    private func tables(
        of tree: StateTree?, _ window: Range<Int>, _ bounds: FileBounds
    ) throws(QCOW2Error) -> L2TableCursor {
        let window = window.clamped(to: 0..<Int(tree?.l1EntryCount ?? 0))
        let start = (tree?.l1TableOffset ?? HostOffset(0)).saturating(
            adding: UInt64(window.lowerBound * L1Entry.byteCount))
        let bytes = try storage.readBytes(window.count * L1Entry.byteCount, at: start)
        let entries = L1Entry.decodeTable(bytes.span)
        for (index, entry) in entries.enumerated() where entry.rawValue != 0 {
            let place = start.saturating(adding: UInt64(index * L1Entry.byteCount))
            try entry.check(window.lowerBound + index, at: place, header.geometry, bounds)
        }
        return L2TableCursor(entries, from: window.lowerBound, in: header.geometry)
    }

    /// Compares what lies below those L1 entries that differ, in windows of the L1 tables.
    private func compare(
        _ origin: L2TableDifference.Origin, _ oldTree: StateTree?, _ newTree: StateTree, _ range: Range<UInt64>,
        _ comparison: L2TableDifference, _ bounds: FileBounds, _ sink: inout ChangedExtentSink, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let span = header.geometry.clusterSize * UInt64(header.geometry.l2EntryCount)
        // Behind the last L1 entry nothing is allocated, in however large a disk. Safe: at most 2^22 entries of 2^39.
        let limit = UInt64(max(oldTree?.l1EntryCount ?? 0, newTree.l1EntryCount)) * span
        let mapped = range.clamped(to: 0..<limit)
        if !mapped.isEmpty {
            let indices = Int(mapped.lowerBound / span)..<Int((mapped.upperBound + span - 1) / span)
            for first in stride(from: indices.lowerBound, to: indices.upperBound, by: Self.l1WindowCount) {
                let window = first..<min(indices.upperBound, first + Self.l1WindowCount)
                var olds = try tables(of: oldTree, window, bounds)
                var news = try tables(of: newTree, window, bounds)
                try compare(origin, &olds, &news, window, mapped, comparison, &sink, &work)
                try work.checkForWish()
            }
        }
        if let unallocated = comparison.unallocated(origin) {
            try sink.add(range.clamped(to: limit..<UInt64.max), unallocated)
        }
    }

    private func compare(
        _ origin: L2TableDifference.Origin, _ olds: inout L2TableCursor, _ news: inout L2TableCursor,
        _ window: Range<Int>, _ mapped: Range<UInt64>, _ comparison: L2TableDifference,
        _ sink: inout ChangedExtentSink, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let span = header.geometry.clusterSize * UInt64(header.geometry.l2EntryCount)
        let (oldOffsets, newOffsets) = (olds, news)
        let isTable = origin == .table
        func isWanted(_ index: Int) -> Bool { !isTable || oldOffsets.offset(at: index) != newOffsets.offset(at: index) }
        var old = L2TableDifference.Table()
        var new = L2TableDifference.Table()
        for index in window where isWanted(index) {
            let start = UInt64(index) * span
            let part = mapped.clamped(to: start..<(start + span))
            if !isTable, news.offset(at: index) == nil {
                if let unallocated = comparison.unallocated(origin) { try sink.add(part, unallocated) }
                continue
            }
            if isTable { try olds.load(index, into: &old, from: storage, where: isWanted) }
            try news.load(index, into: &new, from: storage, where: isWanted)
            try comparison.compare(origin, old, new, from: start, in: part, &sink)
            try work.advance(by: header.geometry.clusterSize)
        }
    }
}

extension L2TableDifference {
    /// What a range is in which the later state has nothing allocated.
    fileprivate func unallocated(_ origin: Origin) -> ChangedExtent.Kind? {
        switch origin {
        case .table: nil
        case .zeros: hasBackingFile ? .backing : nil
        case .nothing: hasBackingFile ? .backing : .zero
        }
    }
}
