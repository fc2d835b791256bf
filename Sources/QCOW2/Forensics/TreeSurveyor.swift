// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Looks at trees that nothing refers to any more, from their L1 tables down to the L2 tables.
///
/// No table is read that is in use. What is read is bounded by a number of bytes for all trees together.
struct TreeSurveyor {
    private let reached: ReachedClusters
    private let shape: TableShape
    /// Clusters with refcount blocks in use, which are never L2 tables.
    private var blocks: ClusterSet
    private var rest: UInt64
    /// What was seen of a tree, by where its L1 table is and how many entries that has.
    private var surveys: [Key: Inspection.TreeSurvey] = [:]
    /// Clusters that were looked at to see whether they hold L2 tables with mappings, and those that do.
    private var judged: ClusterSet
    private var believed: ClusterSet
    /// Those that can't be L2 tables.
    private var rejected: ClusterSet

    private struct Key: Hashable {
        let offset: HostOffset
        let entryCount: UInt32
    }

    /// How many targets are looked at to believe that a table is an L1 table.
    private static let targetLimit = 4

    private var geometry: ImageGeometry { reached.geometry }

    init(_ reached: ReachedClusters, _ refcounts: RefcountTable, byteLimit: UInt64) {
        self.reached = reached
        shape = TableShape(geometry: reached.geometry, fileByteCount: reached.fileByteCount)
        rest = byteLimit
        // Where there is no room, tables are looked at again.
        judged = ClusterSet(clusterCount: reached.clusters.clusterCount, pageLimit: 1 << 12)
        (believed, rejected) = (judged, judged)
        blocks = ClusterSet(clusterCount: judged.clusterCount, pageLimit: ClusterSet.partPageLimit)
        for case .some(let block) in refcounts.blockOffsets { blocks.insert(geometry.cluster(at: block)) }
    }

    /// Looks at the tree below an L1 table.
    mutating func survey<S: Storage & ~Copyable>(
        l1TableAt offset: HostOffset, entryCount: UInt32, from storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Inspection.TreeSurvey {
        let key = Key(offset: offset, entryCount: entryCount)
        if let survey = surveys[key] { return survey }
        var survey = Inspection.TreeSurvey()
        survey.isComplete = true
        let byteCount = UInt64(entryCount) * UInt64(L1Entry.byteCount)
        survey.l1ClusterCount = geometry.clusterCount(forBytes: byteCount)
        var reusedCount: UInt64 = 0
        if entryCount == 0 {
            survey.l1State = .empty
        } else if offset.rawValue >= reached.fileByteCount || !geometry.isAligned(offset) {
            survey.l1State = .lost
        } else {
            let present = min(byteCount, reached.fileByteCount - offset.rawValue)
            let first = geometry.cluster(at: offset)
            for cluster in first..<(first + geometry.clusterCount(forBytes: present)) {
                let start = geometry.offset(ofCluster: cluster).rawValue
                let length = min(geometry.clusterSize, offset.rawValue + present - start) / 8 * 8
                if reached.contains(cluster) {
                    reusedCount += 1
                } else if rest < length {
                    survey.isComplete = false
                    break
                } else {
                    rest -= length
                    try work.advance(by: length)
                    let bytes = try storage.readBytes(Int(length), at: HostOffset(start))
                    guard let l2Tables = shape.l2Tables(ofL1EntriesIn: bytes.span, mayPointPastEnd: true) else {
                        continue
                    }
                    survey.readableL1ClusterCount += 1
                    try look(at: l2Tables, &survey, storage, &work)
                }
            }
            survey.l1State = state(survey, reusedCount: reusedCount, isCut: present < byteCount)
        }
        surveys[key] = survey
        return survey
    }

    private func state(
        _ survey: Inspection.TreeSurvey, reusedCount: UInt64, isCut: Bool
    ) -> Inspection.L1State {
        let readableCount = survey.readableL1ClusterCount
        if !survey.isComplete, readableCount + reusedCount == 0 { return .notLookedAt }
        if readableCount == 0 { return reusedCount == survey.l1ClusterCount ? .reused : .lost }
        if isCut { return .cut }
        if survey.isComplete, readableCount < survey.l1ClusterCount { return .overwritten }
        return survey.l2TableCount == 0 ? .empty : survey.isComplete ? .readable : .notLookedAt
    }

    private mutating func look<S: Storage & ~Copyable>(
        at l2Tables: [HostOffset], _ survey: inout Inspection.TreeSurvey, _ storage: borrowing S,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        for table in l2Tables {
            survey.l2TableCount += 1
            let cluster = geometry.cluster(at: table)
            if table.rawValue >= reached.fileByteCount {
                survey.cutL2TableCount += 1
            } else if reached.isL2Table(cluster) {
                survey.sharedL2TableCount += 1
            } else if reached.contains(cluster) {
                survey.overwrittenL2TableCount += 1
            } else if rest < geometry.clusterSize {
                survey.isComplete = false
            } else {
                rest -= geometry.clusterSize
                try work.advance(by: geometry.clusterSize)
                let bytes = try storage.readBytes(geometry.clusterByteCount, at: table)
                // Zeros are what a hole reads as, and no table that something was written to.
                guard !bytes.span.isZero(in: 0..<bytes.count), let data = shape.data(ofL2EntriesIn: bytes.span) else {
                    survey.overwrittenL2TableCount += 1
                    continue
                }
                survey.readableL2TableCount += 1
                for run in data {
                    for cluster in run.first..<run.end {
                        if reached.contains(cluster) {
                            survey.referencedDataClusterCount += 1
                        } else {
                            survey.unreferencedDataClusterCount += 1
                        }
                    }
                }
            }
        }
    }

    /// How many entries are in use, if the cluster looks like a part of an L1 table; else `nil`.
    ///
    /// L2 tables and refcount tables look the same. But what an L1 table points to are L2 tables, with mappings.
    mutating func usedEntryCount<S: Storage & ~Copyable>(
        ofL1TableIn bytes: Span<UInt8>, from storage: borrowing S
    ) throws(QCOW2Error) -> Int? {
        guard let targets = shape.l2Tables(ofL1EntriesIn: bytes), !targets.isEmpty else { return nil }
        var isBelieved = false
        for target in targets.prefix(Self.targetLimit) {
            let cluster = geometry.cluster(at: target)
            if blocks.contains(cluster) || rejected.contains(cluster) { return nil }
            if !reached.isL2Table(cluster), !judged.contains(cluster) {
                // In use for something else now, it may have been one.
                if reached.contains(cluster) { continue }
                guard rest >= geometry.clusterSize else { continue }
                rest -= geometry.clusterSize
                judged.insert(cluster)
                let table = try storage.readBytes(geometry.clusterByteCount, at: target)
                if table.span.isZero(in: 0..<table.count) { continue }
                guard let data = shape.data(ofL2EntriesIn: table.span) else {
                    rejected.insert(cluster)
                    return nil
                }
                if !data.isEmpty { believed.insert(cluster) }
            }
            if reached.isL2Table(cluster) || believed.contains(cluster) { isBelieved = true }
        }
        return isBelieved ? targets.count : nil
    }
}
