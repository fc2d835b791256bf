// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension UpdatePlanner {
    /// Plans the tables that a change of the disk's size adds to the active tree.
    mutating func planResizing<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        let resizing = proposal.resizing
        if let table = resizing.borderTable {
            addedTables[table.l1Index] = try planBorderTable(table, storage)
        }
        guard !resizing.zeroedL1Entries.isEmpty else { return }
        let run = try allocator.allocate(UInt64(resizing.zeroedL1Entries.count))
        adjust(run, 1)
        // One array, however many tables.
        var zeros = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = zeros.mutableSpan
        for index in 0..<geometry.l2EntryCount { geometry.storeZeroEntry(index, in: &span) }
        for (position, index) in resizing.zeroedL1Entries.enumerated() {
            let offset = geometry.offset(ofCluster: run.first + UInt64(position))
            tables.append((zeros, offset))
            addedTables[index] = offset
        }
    }

    /// Plans the table at the border, whose old form is counted as dropped with all it refers to.
    private mutating func planBorderTable<S: Storage & ~Copyable>(
        _ table: Proposal.BorderTable, _ storage: borrowing S
    ) throws(QCOW2Error) -> HostOffset {
        var bytes = table.bytes
        let scan = L2TableScan(geometry: geometry, fileByteCount: state.fileByteCount)
        var kept: [ClusterRun] = []
        let old = bytes
        _ = try scan.forEachRun(in: old.span, at: table.old ?? HostOffset(0)) { kept.append($0) }
        for run in kept { adjust(run, 1) }
        // What stays keeps its refcount, so that alone decides about the flag.
        var refcounts = RefcountReader(state.refcounts, pieceCount: 256)
        var own: [Int] = []
        for index in 0..<geometry.l2EntryCount {
            let position = index * geometry.l2EntryByteCount
            let entry = L2Entry(rawValue: old.span.loadBigEndian(at: position))
            guard let offset = entry.ownCluster else { continue }
            if try refcounts.refcount(of: geometry.cluster(at: offset), from: storage) == 1 { own.append(index) }
        }
        var flags = CopiedFlags.BitSet(count: geometry.l2EntryCount)
        for index in own { flags.set(index) }
        var span = bytes.mutableSpan
        scan.apply(.mixed(flags), to: &span)
        if let last = table.lastCluster {
            let offset = try write(last.bytes)
            let position = last.index * geometry.l2EntryByteCount
            span.storeBigEndian(L2Entry(rawValue: offset.rawValue).withCopied(true).rawValue, at: position)
            if geometry.hasExtendedL2 { span.storeBigEndian(last.bitmap.rawValue, at: position + 8) }
        }
        return try write(bytes)
    }
}

extension ImageGeometry {
    /// Makes an L2 entry one that reads as zeros without a host cluster.
    ///
    /// Sections "2.3" and "2.4"; not in version 2.
    func storeZeroEntry(_ index: Int, in table: inout MutableSpan<UInt8>) {
        if hasExtendedL2 {
            table.storeBigEndian(UInt64(0), at: index &* 16)
            table.storeBigEndian(SubclusterBitmap.allZero.rawValue, at: index &* 16 &+ 8)
        } else {
            table.storeBigEndian(L2Entry.Bits.zero, at: index &* 8)
        }
    }
}
