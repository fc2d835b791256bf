// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Where everything of a new image goes.
///
/// Header, refcount table, refcount blocks, L1 table, and if all is allocated, L2 tables and data; without a gap, so
/// that every cluster has the refcount one. Like `qemu-img create` for every size where that needs one refcount block.
struct NewImageLayout: Sendable {
    let geometry: ImageGeometry
    let header: Header
    /// The first cluster's bytes: header, extensions, backing file name.
    let headerBytes: [UInt8]
    let refcountTable: ClusterRun
    let refcountBlocks: ClusterRun
    let l1EntryCount: UInt64
    let l1Table: ClusterRun
    /// One L2 table for each L1 entry, or none.
    let l2Tables: ClusterRun
    /// One cluster for each of the disk, or none.
    let data: ClusterRun

    /// All clusters in use.
    var clusterCount: UInt64 { data.end }
    /// The length of the file: with its last table, as short as QEMU makes it.
    var fileByteCount: UInt64 {
        guard l2Tables.count == 0 else { return clusterCount << UInt64(geometry.clusterBits) }
        return l1Table.first << UInt64(geometry.clusterBits) + l1EntryCount * UInt64(L1Entry.byteCount)
    }

    /// Lays out a new image.
    ///
    /// - Throws: What ``NewImage/geometry()`` throws, and ``QCOW2Error/Code/limitExceeded`` when the refcount table
    ///   would be too long, or the backing file's name doesn't fit into the first cluster.
    init(_ new: NewImage) throws(QCOW2Error) {
        geometry = try new.geometry()
        l1EntryCount = geometry.l1EntryCount(forDiskSize: new.virtualSize)
        let l1ClusterCount = geometry.clusterCount(forBytes: l1EntryCount * UInt64(L1Entry.byteCount))
        let isPreallocated = new.preallocation == .metadata
        let l2Count = isPreallocated ? l1EntryCount : 0
        let dataCount = isPreallocated ? geometry.clusterCount(forBytes: new.virtualSize) : 0

        // More clusters may need more blocks, and those a longer table; ends, as each describes many.
        var (tableCount, blockCount): (UInt64, UInt64) = (1, 1)
        while true {
            // Can't overflow: a disk has less than 2^54 clusters, and the rest is a fraction of that.
            let total = 1 + tableCount + blockCount + l1ClusterCount + l2Count + dataCount
            let blocks = (total + geometry.refcountsPerBlock - 1) / geometry.refcountsPerBlock
            let tables = geometry.clusterCount(forBytes: blocks * UInt64(RefcountTableEntry.byteCount))
            guard tables * geometry.clusterSize <= ImageGeometry.maximumRefcountTableByteCount,
                total <= ImageGeometry.hostOffsetLimit >> UInt64(geometry.clusterBits)
            else {
                throw QCOW2Error(.limitExceeded, "The refcount table of the new image would be larger than 8 MiB.")
            }
            if blocks <= blockCount, tables <= tableCount { break }
            (tableCount, blockCount) = (tables, blocks)
        }
        refcountTable = ClusterRun(first: 1, count: tableCount)
        refcountBlocks = ClusterRun(first: refcountTable.end, count: blockCount)
        l1Table = ClusterRun(first: refcountBlocks.end, count: l1ClusterCount)
        l2Tables = ClusterRun(first: l1Table.end, count: l2Count)
        data = ClusterRun(first: l2Tables.end, count: dataCount)
        (header, headerBytes) = try Self.header(
            new, geometry, refcountTable, geometry.offset(ofCluster: l1EntryCount == 0 ? 0 : l1Table.first),
            l1EntryCount)
    }

    private static func header(
        _ new: NewImage, _ geometry: ImageGeometry, _ refcountTable: ClusterRun, _ l1Table: HostOffset,
        _ l1EntryCount: UInt64
    ) throws(QCOW2Error) -> (Header, [UInt8]) {
        var incompatible: IncompatibleFeatures = new.hasExtendedL2 ? .extendedL2 : []
        if new.compressionType != .deflate { incompatible.insert(.compressionType) }
        let headerByteCount = new.version == 2 ? Header.Layout.version2ByteCount : Header.Layout.newByteCount
        let records = try HeaderExtension.records(of: new)
        let name = Array((new.backingFile?.name ?? "").utf8)
        let nameOffset = headerByteCount + records.count
        guard nameOffset + name.count <= geometry.clusterByteCount else {
            throw QCOW2Error(
                .limitExceeded,
                "A backing file's name of \(name.count) bytes doesn't fit into a first cluster of "
                    + "\(geometry.clusterByteCount) bytes.")
        }
        // Safe: checked by the geometry and the layout, all are far smaller.
        let header = Header(
            version: UInt32(new.version), backingFileOffset: HostOffset(name.isEmpty ? 0 : UInt64(nameOffset)),
            backingFileNameByteCount: UInt32(name.count), clusterBits: UInt32(geometry.clusterBits),
            size: new.virtualSize, encryption: .none, l1EntryCount: UInt32(l1EntryCount), l1TableOffset: l1Table,
            refcountTableOffset: geometry.offset(ofCluster: refcountTable.first),
            refcountTableClusterCount: UInt32(refcountTable.count), snapshotCount: 0,
            snapshotTableOffset: HostOffset(0), incompatibleFeatures: incompatible,
            compatibleFeatures: new.allowsLazyRefcounts ? .lazyRefcounts : [], autoclearFeatures: [],
            refcountOrder: UInt32(geometry.refcountOrder), headerByteCount: UInt32(headerByteCount),
            rawCompressionType: new.compressionType.rawValue)
        var bytes = [UInt8](repeating: 0, count: headerByteCount)
        var span = bytes.mutableSpan
        header.encode(into: &span)
        bytes += records
        bytes += name
        bytes.append(contentsOf: repeatElement(0, count: geometry.clusterByteCount - bytes.count))
        return (header, bytes)
    }
}

extension HeaderExtension {
    /// The records of a new image, END included.
    fileprivate static func records(of new: NewImage) throws(QCOW2Error) -> [UInt8] {
        var bytes: [UInt8] = []
        if let backingFile = new.backingFile {
            let nameByteCount = backingFile.name.utf8.count
            guard (1...Int(Header.maximumBackingFileNameByteCount)).contains(nameByteCount) else {
                throw QCOW2Error(
                    .limitExceeded, "A backing file's name has 1 to 1023 bytes; this one has \(nameByteCount).")
            }
            let format = Array(backingFile.format.utf8)
            guard (1...15).contains(format.count) else {
                throw QCOW2Error(
                    .limitExceeded, "A backing file's format has 1 to 15 bytes; this one has \(format.count).")
            }
            encode(.backingFileFormat, format, to: &bytes)
        }
        // In small first clusters there must be room for a name.
        if new.version == 3, new.clusterSize > 4096 { encode(.featureNames, FeatureNames.encoded, to: &bytes) }
        encode(.end, [], to: &bytes)
        return bytes
    }
}
