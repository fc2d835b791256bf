// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One state of the disk.
public enum DiskState: Hashable, Sendable {
    /// What the guest runs on.
    case active
    case snapshot(SnapshotSelector)
}

extension Image where S: ~Copyable {
    /// Reads guest data of one state of the disk, without applying it.
    ///
    /// Looks up each cluster in the L1 and L2 tables anew: made for small reads.
    ///
    /// - Parameters:
    ///   - byteCount: How many bytes; past the end of that state's disk there are zeros or VM state.
    ///   - offset: The first byte.
    ///   - state: Which state; a snapshot has its own disk size, which plays no role here.
    /// - Returns: `byteCount` bytes.
    /// - Throws: ``QCOW2Error`` with the code `unsupported` for encrypted data, an external data file, or a range that
    ///   the backing file holds; `noSuchSnapshot`, `ambiguousSnapshot`, `corrupt` or `inputOutput`.
    public func read(_ byteCount: Int, at offset: GuestOffset, of state: DiskState = .active) throws(QCOW2Error)
        -> [UInt8]
    {
        guard header.encryption == .none else {
            throw QCOW2Error(.unsupported, "The guest's data is encrypted, which can't be read yet.")
        }
        guard !header.incompatibleFeatures.contains(.externalDataFile) else {
            throw QCOW2Error(.unsupported, "The guest's data is in an external data file, which isn't opened.")
        }
        var table = (offset: header.l1TableOffset, entryCount: header.l1EntryCount)
        if case .snapshot(let selector) = state {
            let entry = entries[try index(of: selector)]
            table = (entry.l1TableOffset, entry.l1EntryCount)
        }
        guard let length = UInt64(exactly: byteCount), !offset.rawValue.addingReportingOverflow(length).overflow else {
            throw QCOW2Error(.limitExceeded, "No disk has \(byteCount) bytes from guest offset \(offset) on.")
        }
        let bounds = FileBounds(byteCount: try storage.byteCount())
        var result: [UInt8] = []
        result.reserveCapacity(byteCount)
        while result.count < byteCount {
            let guest = GuestOffset(offset.rawValue + UInt64(result.count))
            let unit = header.geometry.readUnitByteCount
            let start = Int(guest.rawValue % UInt64(unit))
            let bytes = try readUnit(
                GuestOffset(guest.rawValue - UInt64(start)), table.offset, table.entryCount, bounds)
            result += bytes[start..<min(unit, start + byteCount - result.count)]
        }
        return result
    }

    /// Reads the cluster or subcluster at an aligned guest offset.
    private func readUnit(
        _ guest: GuestOffset, _ l1Offset: HostOffset, _ l1EntryCount: UInt32, _ bounds: FileBounds
    ) throws(QCOW2Error) -> [UInt8] {
        let geometry = header.geometry
        let unit = geometry.readUnitByteCount
        let indices = geometry.indices(of: guest)
        guard indices.l1 < UInt64(l1EntryCount) else { return try readBacking(unit, at: guest) }
        let l1Place = l1Offset.saturating(adding: indices.l1 * 8)
        let l1Bytes = try storage.readBytes(L1Entry.byteCount, at: l1Place)
        let l1Entry = L1Entry(rawValue: l1Bytes.span.loadBigEndian(at: 0))
        guard l1Entry.rawValue != 0 else { return try readBacking(unit, at: guest) }
        try l1Entry.check(Int(indices.l1), at: l1Place, geometry, bounds)
        guard let l2Table = l1Entry.l2Table else { return try readBacking(unit, at: guest) }

        let place = l2Table.saturating(adding: UInt64(indices.l2 * geometry.l2EntryByteCount))
        let bytes = try storage.readBytes(geometry.l2EntryByteCount, at: place)
        let entry = L2Entry(rawValue: bytes.span.loadBigEndian(at: 0))
        _ = try L2TableScan(geometry: geometry, fileByteCount: bounds.byteCount).target(
            of: entry, in: bytes.span, 0, place)
        var subcluster = SubclusterBitmap.Mapping.allocated
        if geometry.hasExtendedL2 {
            let bitmap = SubclusterBitmap(rawValue: bytes.span.loadBigEndian(at: 8))
            subcluster = bitmap.mapping(ofSubcluster: indices.byte / unit)
        }
        switch entry.mapping(in: geometry) {
        case .compressed(let compressed):
            let cluster = try decompress(compressed)
            return Array(cluster[indices.byte..<(indices.byte + unit)])
        case .zero: return [UInt8](repeating: 0, count: unit)
        case _ where subcluster == .zero: return [UInt8](repeating: 0, count: unit)
        case .standard(let host) where subcluster == .allocated:
            return try storage.readBytes(unit, at: host.saturating(adding: UInt64(indices.byte)))
        case .standard, .unallocated: return try readBacking(unit, at: guest)
        }
    }

    /// Reads and decompresses a cluster.
    func decompress(_ compressed: CompressedCluster) throws(QCOW2Error) -> [UInt8] {
        let input = try storage.readBytes(Int(compressed.byteCount), at: compressed.offset)
        let cluster = try ClusterCodec.decompress(
            input, header.compressionType ?? .deflate, byteCount: header.geometry.clusterByteCount,
            at: compressed.offset)
        guard let cluster else {
            throw .invalid("compressed cluster", "it doesn't decode to a whole cluster", at: compressed.offset)
        }
        return cluster
    }

    private func readBacking(_ byteCount: Int, at guest: GuestOffset) throws(QCOW2Error) -> [UInt8] {
        guard !hasBackingFile else {
            throw QCOW2Error(.unsupported, "Guest offset \(guest) is in the backing file, which isn't opened.")
        }
        return [UInt8](repeating: 0, count: byteCount)
    }
}

extension ImageGeometry {
    /// The bytes that are mapped alike: a cluster, or a subcluster with extended L2 entries.
    fileprivate var readUnitByteCount: Int {
        hasExtendedL2 ? clusterByteCount / SubclusterBitmap.subclusterCount : clusterByteCount
    }
}
