// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What the clusters of the file are used for, and what is behind the last one in use.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectClusters<S: Storage & ~Copyable>(
        _ header: LenientHeader, _ geometry: ImageGeometry, from storage: borrowing S, _ options: InspectionOptions
    ) throws(QCOW2Error) {
        var walk = ReferenceWalk(
            geometry, fileByteCount: fileByteCount, byteLimit: options.tableByteLimit,
            hasExternalData: header.incompatibleFeatures.contains(.externalDataFile))
        walk.referenced.insert(0)
        for region in regions {
            if let run = geometry.run(at: region.offset, byteCount: region.byteCount) { walk.referenced.insert(run) }
        }
        let bitmapTables = regions.filter { $0.name == Self.bitmapTableName }
        let refcounts: RefcountTable
        do throws(QCOW2Error) {
            refcounts = try readRefcountTable(header, geometry, from: storage)
            for block in refcounts.blockOffsets {
                if let block { walk.referenced.insert(geometry.cluster(at: block)) }
            }
            try walk.addBitmapTables(bitmapTables.map { ($0.offset, $0.byteCount) }, from: storage, &work)
            try walk.addL1Tables(l1Tables(header), from: storage, &work)
        } catch  where error.code != .cancelled {
            report(.readFailed, .corruption, error.message, at: error.offset)
            return
        }
        reportReferences(walk)
        inspectDiskEnd(header, geometry, from: storage)
        guard !walk.isCut else {
            report(
                .searchCut,
                "After \(walk.readByteCount) bytes of tables it is still not known which clusters are in use: "
                    + "nothing was searched for remnants.")
            return
        }
        clusters = ClusterSummary(total: walk.referenced.clusterCount)
        inspectTail(walk.referenced, geometry, from: storage)
        var surveyor = TreeSurveyor(walk, refcounts, byteLimit: options.searchByteLimit)
        do throws(QCOW2Error) {
            try count(walk.referenced, refcounts, from: storage)
            try search(walk, refcounts, &surveyor, from: storage, options)
            try settle(&surveyor, from: storage)
        } catch  where error.code != .cancelled {
            clusters?.isCut = true
            report(.readFailed, .corruption, error.message, at: error.offset)
        }
        reportRemnants()
    }

    /// The refcount table, as far as it can be one.
    private func readRefcountTable<S: Storage & ~Copyable>(
        _ header: LenientHeader, _ geometry: ImageGeometry, from storage: borrowing S
    ) throws(QCOW2Error) -> RefcountTable {
        guard let table = tables.first(where: { $0.name == "refcount table" }), let known = header.known else {
            return RefcountTable(empty: geometry)
        }
        var readable = known
        let byteCount = min(table.presentByteCount, ImageGeometry.maximumRefcountTableByteCount)
        readable.refcountTableClusterCount = UInt32(geometry.clusterCount(forBytes: byteCount))
        return try RefcountTable(reading: readable, storage, FileBounds(byteCount: fileByteCount)) { _, _, _ in }
    }

    /// Counts what the clusters are, by the refcount blocks that there are.
    private mutating func count<S: Storage & ~Copyable>(
        _ referenced: ClusterSet, _ refcounts: RefcountTable, from storage: borrowing S
    ) throws(QCOW2Error) {
        var reader = RefcountReader(refcounts, readsAhead: true)
        let total = referenced.clusterCount
        let perBlock = refcounts.geometry.refcountsPerBlock
        var (leaked, counted): (UInt64, UInt64) = (0, 0)
        for (index, block) in refcounts.blockOffsets.enumerated() {
            guard let start = block?.rawValue else { continue }
            try work.advance(by: refcounts.geometry.clusterSize)
            // Zeros in a hole of the file say what no block would.
            let end = min(start + refcounts.geometry.clusterSize, fileByteCount)
            guard try storage.dataRange(in: start..<end) != nil else { continue }
            var first = UInt64(index) * perBlock
            let last = min(first + perBlock, total)
            while first < last {
                let piece = reader.piece(from: first, upTo: last)
                _ = try reader.read(piece, from: storage)
                for cluster in piece where reader.values[Int(cluster - piece.lowerBound)] > 0 {
                    if referenced.contains(cluster) { counted += 1 } else { leaked += 1 }
                }
                first = piece.upperBound
            }
        }
        let memberCount = referenced.memberCount
        clusters?.referenced = memberCount
        clusters?.leaked = leaked
        clusters?.free = total - memberCount - leaked
        clusters?.referencedWithoutRefcount = memberCount - counted
        if counted < memberCount { try findUncounted(referenced, &reader, refcounts.geometry, from: storage) }
    }

    /// Finds the first cluster in use without a refcount.
    private mutating func findUncounted<S: Storage & ~Copyable>(
        _ referenced: ClusterSet, _ reader: inout RefcountReader, _ geometry: ImageGeometry, from storage: borrowing S
    ) throws(QCOW2Error) {
        var next: UInt64 = 0
        while let run = referenced.nextRun(from: next, inSet: true) {
            for cluster in run.first..<run.end where try reader.refcount(of: cluster, from: storage) == 0 {
                firstUncounted = geometry.offset(ofCluster: cluster)
                return
            }
            try work.checkForWish()
            next = run.end
        }
    }

    /// The parts of the file that are L1 tables of the active state or of a snapshot.
    private func l1Tables(_ header: LenientHeader) -> [(offset: HostOffset, byteCount: UInt64)] {
        let active = (
            offset: HostOffset(header[Layout.l1TableOffset]),
            byteCount: header[Layout.l1Size] * UInt64(L1Entry.byteCount)
        )
        let others = snapshots.map { record in
            (offset: record.l1TableOffset, byteCount: UInt64(record.l1EntryCount) * UInt64(L1Entry.byteCount))
        }
        // A table at 0 would be the header.
        return ([active] + others).filter { $0.offset.rawValue != 0 }
    }

    private mutating func reportReferences(_ walk: ReferenceWalk) {
        if walk.invalid.count > 0 {
            report(
                .entriesInvalid, .corruption,
                "\(walk.invalid.count) entries of L1 and L2 tables are ones that the format forbids.",
                at: walk.invalid.first)
        }
        if walk.pastEnd.count > 0 {
            report(
                .referencesPastEnd, .corruption,
                "\(walk.pastEnd.count) entries of L1 and L2 tables point past the end of the file, up to "
                    + "\(HostOffset(walk.largestOffset)): the file was cut off, or the entries are damaged.",
                at: walk.pastEnd.first)
        }
    }

    /// Looks at what the active L1 table maps past the end of the disk, and at the rest of the disk's last cluster.
    private mutating func inspectDiskEnd<S: Storage & ~Copyable>(
        _ header: LenientHeader, _ geometry: ImageGeometry, from storage: borrowing S
    ) {
        let (size, offset) = (header[Layout.size], HostOffset(header[Layout.l1TableOffset]))
        guard offset.rawValue != 0, geometry.isAligned(offset) else { return }
        let needed = geometry.l1EntryCount(forDiskSize: size)
        let count = min(header[Layout.l1Size], ImageGeometry.maximumL1EntryCount)
        if count > needed {
            let start = offset.saturating(adding: needed * UInt64(L1Entry.byteCount))
            let bytes = read((count - needed) * UInt64(L1Entry.byteCount), at: start, from: storage)
            let wholeCount = bytes.count / L1Entry.byteCount
            let used = (0..<wholeCount).count { bytes.span.loadBigEndian(at: $0 * 8, as: UInt64.self) != 0 }
            if used > 0 {
                report(
                    .activeVMState,
                    "\(used) entries of the active L1 table lie past the end of the disk: VM state, or what is left "
                        + "of a larger disk.", at: start, in: "active L1 table", index: needed)
            }
        }
        guard size % geometry.clusterSize != 0, header[Layout.cryptMethod] == 0,
            !header.incompatibleFeatures.contains(.externalDataFile)
        else { return }
        let indices = geometry.indices(of: GuestOffset(size))
        guard indices.l1 < count else { return }
        let l1Bytes = read(8, at: offset.saturating(adding: indices.l1 * 8), from: storage)
        guard l1Bytes.count == 8, let l2Table = L1Entry(rawValue: l1Bytes.span.loadBigEndian(at: 0)).l2Table else {
            return
        }
        let place = l2Table.saturating(adding: UInt64(indices.l2 * geometry.l2EntryByteCount))
        let l2Bytes = read(8, at: place, from: storage)
        guard l2Bytes.count == 8,
            case .standard(let host) = L2Entry(rawValue: l2Bytes.span.loadBigEndian(at: 0)).mapping(in: geometry)
        else { return }
        let rest = host.saturating(adding: UInt64(indices.byte))
        let bytes = read(geometry.clusterSize - UInt64(indices.byte), at: rest, from: storage)
        guard let first = bytes.firstIndex(where: { $0 != 0 }) else { return }
        report(
            .dataPastDisk, "The disk's last cluster holds data behind the end of the disk, which no guest sees.",
            at: rest.saturating(adding: UInt64(first)))
    }

    /// Looks at what is behind the last cluster in use.
    private mutating func inspectTail<S: Storage & ~Copyable>(
        _ referenced: ClusterSet, _ geometry: ImageGeometry, from storage: borrowing S
    ) {
        let end = geometry.offset(ofCluster: referenced.end)
        guard end.rawValue < fileByteCount else { return }
        let byteCount = fileByteCount - end.rawValue
        // Whether it is zeros is known from as much as is read at once; the search looks at all of it.
        let start = read(min(byteCount, 1 << 20), at: end, from: storage)
        let isZero = start.allSatisfy { $0 == 0 }
        report(
            .dataPastLastCluster,
            "\(byteCount) bytes follow the last cluster in use"
                + (isZero ? "; the first \(start.count) are zeros." : ", and aren't all zeros."), at: end)
    }
}
