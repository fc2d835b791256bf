// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What the clusters of the file are used for, and what is behind the last one in use.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectClusters<S: Storage & ~Copyable>(
        _ reading: ImageReading, from storage: borrowing S, _ options: InspectionOptions, _ sink: FindingSink,
        _ list: FindingList
    ) throws(QCOW2Error) {
        let geometry = reading.geometry
        let claims = TableClaims(reading, sink)
        collected.take(list)
        try inspectRegions(geometry, from: storage)
        let reached: ReachedClusters
        let areReferencesKnown: Bool
        do throws(QCOW2Error) {
            let mappings = try MappingIndex(reading, claims, reading: storage, sink, &work)
            areReferencesKnown = reading.isComplete && mappings.isComplete
            reached = try ReachedClusters(
                reading, mappings, byteLimit: options.tableByteLimit, from: storage, sink, &work)
        } catch  where error.code != .cancelled {
            report(.readFailed, error.message, at: error.offset)
            return
        }
        collected.take(list)
        inspectDiskEnd(reading, from: storage)
        guard !reached.isCut else {
            report(
                .searchCut,
                "The image's tables are larger than the limits, so it isn't known which clusters are in use: nothing was "
                    + "searched for remnants.")
            return
        }
        clusters = ClusterSummary(total: reading.fileClusterCount)
        clusters?.areReferencesKnown = areReferencesKnown
        inspectTail(reached.clusters, geometry, from: storage)
        let refcounts = reading.refcounts
        var surveyor = TreeSurveyor(reached, refcounts, byteLimit: options.searchByteLimit)
        do throws(QCOW2Error) {
            try count(reached.clusters, refcounts, from: storage)
            try search(reached, refcounts, &surveyor, from: storage, options)
            try settle(&surveyor, from: storage)
        } catch  where error.code != .cancelled {
            clusters?.isCut = true
            report(.readFailed, error.message, at: error.offset)
        }
        reportRemnants()
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

    /// Looks at what the active L1 table maps past the end of the disk, and at the rest of the disk's last cluster.
    private mutating func inspectDiskEnd<S: Storage & ~Copyable>(
        _ reading: ImageReading, from storage: borrowing S
    ) {
        let (header, geometry, tree) = (reading.header, reading.geometry, reading.trees[0])
        let needed = geometry.l1EntryCount(forDiskSize: header.size)
        if UInt64(tree.entryCount) > needed {
            let start = tree.offset.saturating(adding: needed * UInt64(L1Entry.byteCount))
            let bytes = read((UInt64(tree.entryCount) - needed) * UInt64(L1Entry.byteCount), at: start, from: storage)
            let wholeCount = bytes.count / L1Entry.byteCount
            let used = (0..<wholeCount).count { bytes.span.loadBigEndian(at: $0 * 8, as: UInt64.self) != 0 }
            if used > 0 {
                report(
                    .activeVMState,
                    "\(used) entries of the active L1 table lie behind the disk's end: VM state, or what is left of it.",
                    at: start, in: tree.name, index: needed)
            }
        }
        guard header.size % geometry.clusterSize != 0, reading.fields[Layout.cryptMethod] == 0, !reading.hasDataFile
        else { return }
        let indices = geometry.indices(of: GuestOffset(header.size))
        guard indices.l1 < tree.entryCount else { return }
        let l1Bytes = read(8, at: tree.offset.saturating(adding: indices.l1 * 8), from: storage)
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
