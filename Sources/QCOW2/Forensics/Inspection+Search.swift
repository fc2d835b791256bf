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

    /// Searches what the clusters hold that nothing refers to; holes of the file cost nothing.
    mutating func search<S: Storage & ~Copyable>(
        _ reached: ReachedClusters, _ refcounts: RefcountTable, _ surveyor: inout TreeSurveyor,
        from storage: borrowing S,
        _ options: InspectionOptions
    ) throws(QCOW2Error) {
        let geometry = reached.geometry
        let clustersPerPiece = max(1, Self.pieceByteCount / geometry.clusterSize)
        var reader = RefcountReader(refcounts, pieceCount: 4096)
        var rest = options.searchByteLimit
        var next: UInt64 = 0
        while let run = reached.clusters.nextRun(from: next, inSet: false) {
            try work.checkForWish()
            let start = geometry.offset(ofCluster: run.first).rawValue
            let end = min(geometry.offset(ofCluster: run.end - 1).rawValue + geometry.clusterSize, fileByteCount)
            guard let data = try storage.dataRange(in: start..<end) else {
                next = run.end
                continue
            }
            let first = geometry.cluster(at: HostOffset(data.lowerBound))
            let count = min(geometry.cluster(at: HostOffset(data.upperBound - 1)) - first + 1, clustersPerPiece)
            guard rest >= count * geometry.clusterSize else {
                clusters?.isCut = true
                report(
                    .searchCut,
                    "\(options.searchByteLimit) bytes of unused clusters were searched; those from here on were not.",
                    at: geometry.offset(ofCluster: first))
                break
            }
            rest -= count * geometry.clusterSize
            try searchPiece(ClusterRun(first: first, count: count), &reader, &surveyor, from: storage, geometry)
            next = first + count
        }
    }

    private mutating func searchPiece<S: Storage & ~Copyable>(
        _ piece: ClusterRun, _ refcounts: inout RefcountReader, _ surveyor: inout TreeSurveyor,
        from storage: borrowing S, _ geometry: ImageGeometry
    ) throws(QCOW2Error) {
        let offset = geometry.offset(ofCluster: piece.first)
        let present = fileByteCount - offset.rawValue
        let byteCount = Int(min(piece.count * geometry.clusterSize, present))
        let bytes = try storage.readBytes(
            Int(min(UInt64(byteCount) + Self.overlapByteCount, present)), at: offset)
        try work.advance(by: UInt64(byteCount))
        for index in 0..<Int(piece.count) {
            let start = index << geometry.clusterBits
            let end = min(start + geometry.clusterByteCount, byteCount)
            guard !bytes.span.isZero(in: start..<end) else { continue }
            let isFree = try refcounts.refcount(of: piece.first + UInt64(index), from: storage) == 0
            if isFree { clusters?.freeWithData += 1 }
            let place: Place = isFree ? .free : .leaked
            let base = offset.saturating(adding: UInt64(start))
            let reach = min(bytes.count, end + Int(Self.overlapByteCount))
            remnants.collect(in: Array(bytes[start..<reach]), from: base, place: place, startingIn: end - start)
            let table = bytes.span.extracting(start..<end)
            guard oldL1Tables.count < Self.tableLimit,
                let usedCount = try surveyor.usedEntryCount(ofL1TableIn: table, from: storage)
            else { continue }
            oldL1Tables.append(
                TableRemnant(
                    offset: base, place: place, usedEntryCount: usedCount, confidence: .probable,
                    confidenceReason: "what it points to has the shape of L2 tables"))
        }
    }

    /// Searches a file whose clusters can't be known, for entries of snapshot tables only.
    mutating func searchWhole<S: Storage & ~Copyable>(
        of storage: borrowing S, _ options: InspectionOptions
    ) throws(QCOW2Error) {
        var rest = options.searchByteLimit
        var position: UInt64 = 0
        while position < fileByteCount {
            try work.checkForWish()
            let data: Range<UInt64>?
            do throws(QCOW2Error) {
                data = try storage.dataRange(in: position..<fileByteCount)
            } catch {
                report(.readFailed, error.message, at: error.offset)
                break
            }
            guard let data else { break }
            // Entries start at multiples of eight.
            position = data.lowerBound / 8 * 8
            guard rest > 0 else {
                report(
                    .searchCut,
                    "\(options.searchByteLimit) bytes were searched for snapshots; those from here on weren't.",
                    at: HostOffset(position))
                break
            }
            let count = min(Self.pieceByteCount, data.upperBound - position, rest)
            let bytes = read(count + Self.overlapByteCount, at: HostOffset(position), from: storage)
            try work.advance(by: count)
            if !bytes.span.isZero(in: 0..<bytes.count) {
                remnants.collect(in: bytes, from: HostOffset(position), place: .unknown, startingIn: Int(count))
            }
            rest -= count
            position += count
        }
        for var remnant in remnants.found {
            remnant.confidenceReason =
                "the file's clusters aren't known, so nobody looked at its L1 table, and it may be of an image inside "
                + "the guest's disk"
            sort(remnant)
        }
        reportRemnants()
    }

    /// Separates copies of the snapshots that are there from those that are gone, and looks at the tables of these.
    mutating func settle<S: Storage & ~Copyable>(
        _ surveyor: inout TreeSurveyor, from storage: borrowing S
    ) throws(QCOW2Error) {
        var (copyCount, firstCopy) = (remnants.presentCopyCount, remnants.firstPresentCopy)
        for var remnant in remnants.found {
            // What was found before the snapshots were known.
            if remnants.present.contains(RemnantCollector.Key(remnant.snapshot)) {
                copyCount += remnant.copyCount
                firstCopy = firstCopy ?? remnant.offset
                continue
            }
            if remnant.nestedImageOffset == nil {
                remnant.survey = try surveyor.survey(
                    l1TableAt: remnant.l1TableOffset, entryCount: remnant.l1EntryCount, from: storage, &work)
                (remnant.confidence, remnant.confidenceReason) = remnant.judgement
            }
            sort(remnant)
        }
        if copyCount > 0 {
            report(
                .oldSnapshotTable,
                "\(copyCount) entries of earlier snapshot tables repeat snapshots that are still there.",
                at: firstCopy)
        }
    }

    /// Puts a remnant where it belongs: to this image, or to one inside it.
    private mutating func sort(_ remnant: SnapshotRemnant) {
        guard let nested = remnant.nestedImageOffset else {
            deletedSnapshots.append(remnant)
            return
        }
        var remnant = remnant
        remnant.confidence = .probable
        remnant.confidenceReason = "the header of an image at \(nested) has its snapshot table there"
        nestedSnapshots.append(remnant)
    }
}

extension Inspection.SnapshotRemnant {
    /// How sure it is that the snapshot was one of this image, and why.
    fileprivate var judgement: (Finding.Confidence, String) {
        if survey.readableL2TableCount > 0 {
            return (.confirmed, "its L1 table is there and leads to L2 tables that nothing else uses")
        }
        if survey.sharedL2TableCount > 0 { return (.confirmed, "its L1 table is there and leads to L2 tables in use") }
        if isBesidePresent {
            return (.probable, "it follows, or is followed by, the entry of a snapshot that is there")
        }
        return (
            .unconfirmed,
            "nothing else in the file belongs to it: it may be of another image whose bytes were there before"
        )
    }
}
