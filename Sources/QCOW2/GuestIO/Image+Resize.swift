// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Makes the disk larger or smaller.
    ///
    /// What is added reads as zeros: VM state that lies there, and what is left of a larger disk behind the old end,
    /// is dropped first. What is cut off is gone from the active state; snapshots keep their size and content. One
    /// commit with two flushes: a crash at any moment leaves the disk with the old size or with the new one, whole.
    ///
    /// Costs what creating a snapshot costs; and over a backing file, 8 bytes for each cluster added (16 with extended
    /// L2 entries), unless `backingSize` says that the file doesn't reach there.
    ///
    /// - Parameters:
    ///   - virtualSize: The new size in bytes, a multiple of 512.
    ///   - allowingDataLoss: Whether the disk may become smaller.
    ///   - bitmaps: What to do with bitmaps, which would no longer match the disk.
    ///   - backingSize: Bytes of the backing file's disk, for a caller who knows. What is added must hide what that
    ///     file has there; without the number that is done for all of it.
    ///   - options: Whether freed clusters are given back to the file system.
    /// - Throws: ``QCOW2Error`` with the code `wouldLoseData`; `limitExceeded` for a size that the image can't map;
    ///   `unsupported` for a size that is no multiple of 512, version 2 with snapshots, version 2 over a backing file
    ///   that would show, and a border inside an encrypted cluster; `backingFileNotAllowed` for a border inside a
    ///   cluster of the backing file; `activeBitmaps`, `readOnly`, `needsRepair`, `corrupt` or `inputOutput`. The
    ///   image is as before.
    public mutating func resize(
        to virtualSize: UInt64, allowingDataLoss: Bool = false, bitmaps: BitmapPolicy = .refuse,
        backingSize: UInt64? = nil, options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) {
        try checkWritable()
        guard virtualSize % ImageGeometry.sectorSize == 0 else {
            throw QCOW2Error(.unsupported, "A disk of \(virtualSize) bytes isn't a multiple of 512.")
        }
        try header.geometry.checkDiskSize(virtualSize)
        guard virtualSize >= header.size || allowingDataLoss else {
            throw QCOW2Error(
                .wouldLoseData, "Making the disk of \(header.size) bytes smaller would lose what is behind its new end."
            )
        }
        guard !header.isVersion2 || entries.isEmpty else {
            throw QCOW2Error(
                .unsupported, "The disk of a version 2 image with snapshots can't be resized: they may lack a size.")
        }
        guard virtualSize != header.size else { return }
        try endSession()
        let basis = try commitBasis()
        let state = try ImageState(opened, reading: storage)
        var proposal = Proposal(keeping: state)
        if state.hasTrustedBitmaps {
            guard bitmaps == .drop else { throw .activeBitmaps(storage.name, "resize") }
            proposal.dropsBitmaps = true
        }
        proposal.virtualSize = virtualSize
        let border = DiskBorder(from: header.size, to: virtualSize, hasBackingFile ? backingSize ?? .max : 0)
        proposal.resizing = try resizing(at: border, state)
        try carryOut(proposal, from: state, basis, options)
    }

    /// What the tables beside and behind the border must become.
    private func resizing(at border: DiskBorder, _ state: ImageState) throws(QCOW2Error) -> Proposal.Resizing {
        let geometry = header.geometry
        let tree = try state.readSoundTree(ImageState.activeTree, from: storage)
        // Safe: all sizes can be mapped by an L1 table.
        let kept = Int(geometry.l1EntryCount(forDiskSize: border.offset))
        let exposed = Int(geometry.l1EntryCount(forDiskSize: border.end))
        let hidden = Int(geometry.l1EntryCount(forDiskSize: border.hiddenEnd))
        var resizing = Proposal.Resizing()
        resizing.droppedL1Entries = min(kept, tree.count)..<max(min(kept, tree.count), min(exposed, tree.count))
        resizing.zeroedL1Entries = kept..<max(kept, hidden)
        if header.isVersion2, border.hiddenEnd > border.offset {
            throw QCOW2Error(
                .unsupported,
                "A larger disk of version 2 would show what its backing file has there, and can't hide it.")
        }
        if kept > 0, geometry.indices(of: GuestOffset(border.offset)).l1 == UInt64(kept - 1) {
            let old = kept <= tree.count ? tree[kept - 1].l2Table : nil
            resizing.borderTable = try borderTable(kept - 1, old, border, state)
        }
        return resizing
    }

    /// The table across the border; `nil` if it is as it should be.
    private func borderTable(
        _ l1Index: Int, _ old: HostOffset?, _ border: DiskBorder, _ state: ImageState
    ) throws(QCOW2Error) -> Proposal.BorderTable? {
        let geometry = header.geometry
        let hides = border.hiddenEnd > border.offset
        guard old != nil || hides else { return nil }
        var bytes = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        if let old { bytes = try storage.readBytes(bytes.count, at: old) }
        var table = Proposal.BorderTable(l1Index: l1Index, old: old, bytes: bytes)
        let indices = geometry.indices(of: GuestOffset(border.offset))
        if indices.byte > 0 { try cut(indices.l2, at: indices.byte, &table, hides: hides, state) }
        var span = table.bytes.mutableSpan
        for index in (indices.byte > 0 ? indices.l2 + 1 : indices.l2)..<geometry.l2EntryCount {
            for byte in 0..<geometry.l2EntryByteCount { span[index &* geometry.l2EntryByteCount &+ byte] = 0 }
            if hides { geometry.storeZeroEntry(index, in: &span) }
        }
        return table.bytes == bytes && table.lastCluster == nil ? nil : table
    }

    /// Makes what lies behind the border in the cluster across it read as zeros.
    private func cut(
        _ index: Int, at byte: Int, _ table: inout Proposal.BorderTable, hides: Bool, _ state: ImageState
    ) throws(QCOW2Error) {
        let geometry = header.geometry
        let position = index * geometry.l2EntryByteCount
        let entry = L2Entry(rawValue: table.bytes.span.loadBigEndian(at: position))
        let place = table.old?.saturating(adding: UInt64(position)) ?? HostOffset(0)
        let scan = L2TableScan(geometry: geometry, fileByteCount: state.fileByteCount)
        _ = try scan.target(of: entry, in: table.bytes.span, position, place)
        var units = ClusterUnits(entry, geometry, in: table.bytes.span, at: position)
        let unit = units.byteCount
        let (cutUnit, firstBehind) = (byte / unit, (byte + unit - 1) / unit)
        if hides, byte % unit != 0, !entry.isCompressed, units[cutUnit] == .unallocated {
            throw QCOW2Error(
                .backingFileNotAllowed,
                "The disk's end lies inside a cluster of the backing file, which would have to be read.")
        }
        var cluster: [UInt8]?
        switch entry.mapping(in: geometry) {
        case .unallocated, .zero: break
        case .standard(let host):
            try checkReadable()
            cluster = try storage.readBytes(geometry.clusterByteCount, at: host)
        case .compressed(let compressed):
            try checkReadable()
            cluster = try storage.decompress(compressed, header.compressionType ?? .deflate, geometry)
        }
        // A subcluster behind the border has no bytes to be cleared, only a mapping.
        if !entry.isCompressed {
            for index in firstBehind..<units.count { units[index] = hides ? .zero : .unallocated }
        }
        if var bytes = cluster, entry.isCompressed || byte % unit != 0 && units[cutUnit] == .allocated {
            let end = entry.isCompressed ? bytes.count : (cutUnit + 1) * unit
            if (byte..<end).contains(where: { bytes[$0] != 0 }) {
                for index in byte..<end { bytes[index] = 0 }
                if entry.isCompressed { units.allocateAll() }
                table.lastCluster = Proposal.LastCluster(bytes: bytes, index: index, bitmap: units.bitmap)
            }
        }
        let isReplaced = table.lastCluster != nil
        var span = table.bytes.mutableSpan
        // The old cluster isn't referred to any more; the planner puts the new one there.
        if isReplaced { span.storeBigEndian(UInt64(0), at: position) }
        if geometry.hasExtendedL2 {
            span.storeBigEndian(isReplaced ? 0 : units.bitmap.rawValue, at: position + 8)
        }
    }

    private func checkReadable() throws(QCOW2Error) {
        guard header.encryption == .none else {
            throw QCOW2Error(
                .unsupported,
                "The disk's end would lie inside an encrypted cluster; choose a multiple of the "
                    + "cluster size of \(header.geometry.clusterSize).")
        }
    }
}

/// Where the disk ends, or will.
private struct DiskBorder {
    /// The smaller size: what is in front of it stays.
    let offset: UInt64
    /// The larger size: nothing between the two may stay.
    let end: UInt64
    /// Up to where, between the two, a backing file would show; ``offset`` if it wouldn't.
    let hiddenEnd: UInt64

    init(from old: UInt64, to new: UInt64, _ backingSize: UInt64) {
        // The guest sees whole sectors.
        let visible = old & ~(ImageGeometry.sectorSize - 1)
        offset = min(visible, new)
        end = max(old, new)
        hiddenEnd = max(offset, new > old ? min(new, backingSize) : 0)
    }
}
