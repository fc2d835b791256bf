// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What must hold of every plan, whatever image it was made for: a second specification, checked in debug builds.
///
/// No content of a file can reach these assertions: what it says was checked before, and thrown as an error.
extension UpdatePlanner {
    /// Whether a finished plan keeps the shadow commit's promise.
    ///
    /// Section "6.3 Commit method A", step 3.
    func isSound(_ update: MetadataUpdate, _ blocks: BlockSurvey) -> Bool {
        let targets = clusters(of: update)
        return targets.areAscendingAndDisjoint
            && targets.allSatisfy { blocks.isFree($0) }
            && isComplete(update)
            && update.movedTables.map(\.source.rawValue).isAscending
            && (update.refcounts?.targets.map { UInt64($0.index) }.isAscending ?? true)
    }

    /// All clusters that an update writes before the switch, in ascending order.
    private func clusters(of update: MetadataUpdate) -> [ClusterRun] {
        var runs = update.tables.compactMap { geometry.run(at: $0.offset, byteCount: UInt64($0.bytes.count)) }
        runs += update.movedTables.map { ClusterRun(first: geometry.cluster(at: $0.target), count: 1) }
        runs += update.refcounts?.targets.map { ClusterRun(first: geometry.cluster(at: $0.offset), count: 1) } ?? []
        return runs.sorted { $0.first < $1.first }
    }

    /// Whether the new header describes an image of the same kind, whose tables are as long as it says.
    private func isComplete(_ update: MetadataUpdate) -> Bool {
        let (old, new) = (state.header, update.header)
        let neededCount = geometry.l1EntryCount(forDiskSize: new.size)
        return new.geometry == old.geometry && new.version == old.version && new.encryption == old.encryption
            && new.compatibleFeatures == old.compatibleFeatures
            && new.incompatibleFeatures.isSubset(of: old.incompatibleFeatures)
            && (proposal.repair != nil || UInt64(new.l1EntryCount) >= neededCount)
            && (proposal.repair != nil || update.entries.count == Int(new.snapshotCount))
    }
}

extension BlockSurvey {
    /// Whether clusters had the refcount 0 when the image was surveyed, so that nobody misses what is there.
    func isFree(_ run: ClusterRun) -> Bool {
        if run.first >= end { return true }
        var (low, high) = (0, free.count)
        while low < high {
            let middle = (low + high) / 2
            if free[middle].end <= run.first { low = middle + 1 } else { high = middle }
        }
        return low < free.count && free[low].first <= run.first && (run.end <= free[low].end || free[low].end >= end)
    }
}

extension [UInt8] {
    /// Whether only those bytes of a header's sector differ that a commit may switch: disk size, L1 table, refcount
    /// table, snapshot table, and features.
    ///
    /// Section "1.1 Fields": they lie in bytes 24 to 95.
    func differsFromSectorOnlyWhereACommitMay(_ other: [UInt8]) -> Bool {
        count == other.count && indices.allSatisfy { (24..<96).contains($0) || self[$0] == other[$0] }
    }
}
