// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Searches clusters that nothing refers to for what deleted snapshots left.
extension Inspection {
    /// Bytes that are read at once.
    private static let pieceByteCount: UInt64 = 1 << 20
    /// Bytes that are read on top, so that an entry on a border is found; more than a name that a program gives.
    private static let overlapByteCount: UInt64 = 2048
    /// How many L1 tables are kept.
    private static let tableLimit = 10_000

    mutating func search<S: Storage & ~Copyable>(
        _ walk: ReferenceWalk, _ refcounts: inout LenientRefcounts, from storage: borrowing S,
        _ options: InspectionOptions
    ) throws(QCOW2Error) {
        let geometry = walk.geometry
        let clustersPerPiece = max(1, Self.pieceByteCount / geometry.clusterSize)
        var rest = options.searchByteLimit
        var next: UInt64 = 0
        while let run = walk.referenced.nextRun(from: next, inSet: false) {
            let count = min(run.count, clustersPerPiece)
            next = run.first + count
            guard rest >= count * geometry.clusterSize else {
                clusters?.isCut = true
                report(
                    .searchCut,
                    "\(options.searchByteLimit) bytes of unused clusters were searched; those from here on were not.",
                    at: geometry.offset(ofCluster: run.first))
                break
            }
            rest -= count * geometry.clusterSize
            let piece = ClusterRun(first: run.first, count: count)
            try searchPiece(piece, walk, &refcounts, from: storage)
        }
        let referenced = walk.referenced.memberCount
        clusters?.referenced = referenced
    }

    private mutating func searchPiece<S: Storage & ~Copyable>(
        _ piece: ClusterRun, _ walk: ReferenceWalk, _ refcounts: inout LenientRefcounts, from storage: borrowing S
    ) throws(QCOW2Error) {
        let geometry = walk.geometry
        let offset = geometry.offset(ofCluster: piece.first)
        let present = fileByteCount - offset.rawValue
        let byteCount = Int(min(piece.count * geometry.clusterSize, present))
        let bytes = try storage.readBytes(
            Int(min(UInt64(byteCount) + Self.overlapByteCount, present)), at: offset)
        for index in 0..<Int(piece.count) {
            let cluster = piece.first + UInt64(index)
            let isFree = try refcounts.refcount(of: cluster, from: storage) == 0
            if isFree { clusters?.free += 1 } else { clusters?.leaked += 1 }
            let start = index << geometry.clusterBits
            let end = min(start + geometry.clusterByteCount, byteCount)
            guard bytes.span.hasNonZeroByte(in: start..<end) else { continue }
            if isFree { clusters?.freeWithData += 1 }
            let place: Place = isFree ? .free : .leaked
            let base = offset.saturating(adding: UInt64(start))
            let reach = min(bytes.count, end + Int(Self.overlapByteCount))
            remnants.collect(
                in: Array(bytes[start..<reach]), from: base, place: place, alignment: geometry.clusterSize,
                startingIn: end - start)
            let table = bytes.span.extracting(start..<end)
            if let usedCount = try walk.usedEntryCount(ofL1TableIn: table, from: storage) {
                guard oldL1Tables.count < Self.tableLimit else { continue }
                oldL1Tables.append(TableRemnant(offset: base, place: place, usedEntryCount: usedCount))
            }
        }
    }

    /// Searches a file whose clusters can't be known, for entries of snapshot tables only.
    mutating func searchWhole<S: Storage & ~Copyable>(of storage: borrowing S, _ options: InspectionOptions) {
        let limit = min(fileByteCount, options.searchByteLimit)
        var position: UInt64 = 0
        while position < limit {
            let count = min(Self.pieceByteCount, limit - position)
            let bytes = read(count + Self.overlapByteCount, at: HostOffset(position), from: storage)
            if bytes.span.hasNonZeroByte(in: 0..<bytes.count) {
                remnants.collect(
                    in: bytes, from: HostOffset(position), place: .unknown, alignment: ImageGeometry.sectorSize,
                    startingIn: Int(count))
            }
            position += count
        }
        if limit < fileByteCount {
            report(.searchCut, "The first \(limit) bytes were searched for snapshots.", at: HostOffset(limit))
        }
        deletedSnapshots = remnants.found
        reportRemnants()
    }

    /// Separates copies of the snapshots that are there from those that are gone, and looks for the tables of these.
    mutating func settle<S: Storage & ~Copyable>(_ walk: ReferenceWalk, from storage: borrowing S) throws(QCOW2Error) {
        let present = Set(snapshots.map { RemnantCollector.Key($0.snapshot, HostOffset(0)) })
        var copyCount = 0
        var firstCopy: HostOffset?
        for var remnant in remnants.found {
            if present.contains(RemnantCollector.Key(remnant.snapshot, HostOffset(0))) {
                copyCount += remnant.copyCount
                firstCopy = firstCopy ?? remnant.offset
                continue
            }
            remnant.l1State = try walk.state(
                ofL1TableAt: remnant.l1TableOffset, entryCount: remnant.l1EntryCount, from: storage)
            deletedSnapshots.append(remnant)
        }
        if copyCount > 0 {
            report(
                .oldSnapshotTable,
                "\(copyCount) entries of earlier snapshot tables repeat snapshots that are still there.",
                at: firstCopy)
        }
    }

    mutating func reportRemnants() {
        if remnants.isFull {
            report(.searchCut, "Of the remnants of snapshots only the first \(RemnantCollector.limit) are kept.")
        }
        for remnant in deletedSnapshots {
            let snapshot = remnant.snapshot
            report(
                .deletedSnapshot,
                "In \(remnant.place.phrase) is the entry of a snapshot with the ID \(snapshot.id) and the name "
                    + "'\(escaped(snapshot.nameBytes))'; its L1 table \(remnant.l1State.phrase).",
                at: remnant.offset)
        }
        if let clusters, clusters.leaked > 0 {
            report(
                .leakedClusters, .leak,
                "\(clusters.leaked) clusters have a refcount, but nothing refers to them.")
        }
        if let clusters, clusters.freeWithData > 0 {
            report(
                .freeClustersWithData,
                "\(clusters.freeWithData) free clusters aren't zero: what was deleted may still be in them.")
        }
        let known = Set(deletedSnapshots.map(\.l1TableOffset))
        for table in oldL1Tables where !known.contains(table.offset) {
            report(
                .oldL1Table,
                "In \(table.place.phrase) is what looks like an L1 table with \(table.usedEntryCount) entries: of a "
                    + "deleted snapshot, or of an earlier state of the disk.", at: table.offset)
        }
    }
}

extension Inspection.Place {
    fileprivate var phrase: String {
        switch self {
        case .free: "a free cluster"
        case .leaked: "a leaked cluster"
        case .slack: "the slack of a table"
        case .unknown: "the file"
        }
    }
}

extension Inspection.L1State {
    fileprivate var phrase: String {
        switch self {
        case .readable: "is still there"
        case .reused: "was overwritten by something in use"
        case .empty: "is gone or empty"
        case .lost: "is gone"
        }
    }
}

extension Span<UInt8> {
    /// Whether there is anything but zeros in a range.
    func hasNonZeroByte(in range: Range<Int>) -> Bool {
        var index = range.lowerBound
        while index + 8 <= range.upperBound {
            if loadBigEndian(at: index, as: UInt64.self) != 0 { return true }
            index += 8
        }
        while index < range.upperBound {
            if self[index] != 0 { return true }
            index += 1
        }
        return false
    }
}
