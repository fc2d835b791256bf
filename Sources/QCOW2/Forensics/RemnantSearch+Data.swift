// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What tables lead to.
extension RemnantSearch {
    /// The most free clusters that are looked at for one L2 table.
    private static let freeClusterLimit = 64

    /// How many of these clusters aren't zeros, and belong to no state.
    ///
    /// Free ones are counted only where there are no leaked ones, and up to the first. One that isn't looked at any
    /// more counts: nothing is destroyed unseen.
    mutating func ownDataCount<S: Storage & ~Copyable>(
        _ data: [ClusterRun], _ storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        var count: UInt64 = 0
        for run in data { for cluster in run.first..<run.end where filled.contains(cluster) { count += 1 } }
        guard count == 0 else { return count }
        var lookedAt = 0
        // In the order of the file, each piece of refcounts is read once.
        for run in data.sorted(by: { $0.first < $1.first }) {
            for cluster in run.first..<run.end {
                guard try isFree(cluster, storage), try !isHole(cluster, storage) else { continue }
                lookedAt += 1
                guard lookedAt <= Self.freeClusterLimit, let bytes = try readFree(cluster, storage) else { return 1 }
                if !bytes.span.isZero(in: 0..<bytes.count) { return 1 }
            }
        }
        return 0
    }

    /// The same for everything below the entries of an L1 table, with the leaked L2 tables that lead there.
    mutating func ownDataCount<S: Storage & ~Copyable>(
        below tables: [HostOffset], _ storage: borrowing S, noting below: inout ClusterSet
    ) throws(QCOW2Error) -> UInt64 {
        var count: UInt64 = 0
        for table in tables {
            let cluster = geometry.cluster(at: table)
            if l2Tables.contains(cluster) {
                below.insert(cluster)
                count += dataCounts[cluster] ?? 1
            } else if count == 0, try isFree(cluster, storage), try !isHole(cluster, storage) {
                guard let bytes = try readFree(cluster, storage) else { return 1 }
                guard let data = shape.data(ofL2EntriesIn: bytes.span) else { continue }
                count += try ownDataCount(data, storage)
            }
        }
        return count
    }

    /// The same for an L1 table that an entry of a snapshot table points to, unless a state uses its clusters.
    mutating func ownDataCount<S: Storage & ~Copyable>(
        ofL1TableAt offset: HostOffset, entryCount: UInt32, _ storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        let byteCount = UInt64(entryCount) * UInt64(L1Entry.byteCount)
        guard offset.rawValue < shape.fileByteCount, geometry.isAligned(offset) else { return 0 }
        let present = min(byteCount, shape.fileByteCount - offset.rawValue)
        guard let run = geometry.run(at: offset, byteCount: present) else { return 0 }
        var count: UInt64 = 0
        var noted = ClusterSet(clusterCount: leaked.clusterCount, pageLimit: ClusterSet.partPageLimit)
        for cluster in run.first..<run.end where count == 0 {
            let start = geometry.offset(ofCluster: cluster)
            let length = min(geometry.clusterSize, offset.rawValue + present - start.rawValue) / 8 * 8
            let isLeaked = leaked.contains(cluster)
            guard try isLeaked ? filled.contains(cluster) : isFree(cluster, storage), length <= freeByteCount else {
                continue
            }
            freeByteCount -= length
            let bytes = try storage.readBytes(Int(length), at: start)
            guard let tables = shape.l2Tables(ofL1EntriesIn: bytes.span) else { return 0 }
            count += try ownDataCount(below: tables, storage, noting: &noted)
        }
        return count
    }

    /// Whether nothing refers to a cluster, and its refcount is zero.
    private mutating func isFree<S: Storage & ~Copyable>(
        _ cluster: UInt64, _ storage: borrowing S
    ) throws(QCOW2Error) -> Bool {
        guard cluster < leaked.clusterCount, !leaked.contains(cluster), !uncounted.contains(cluster) else {
            return false
        }
        return try refcounts.refcount(of: cluster, from: storage) == 0
    }

    /// Whether a cluster lies in a hole of the file.
    private mutating func isHole<S: Storage & ~Copyable>(
        _ cluster: UInt64, _ storage: borrowing S
    ) throws(QCOW2Error) -> Bool {
        let start = geometry.offset(ofCluster: cluster).rawValue
        let end = min(start + geometry.clusterSize, shape.fileByteCount)
        if hole.contains(start), hole.upperBound >= end { return true }
        let data = try storage.dataRange(in: start..<shape.fileByteCount)
        guard data.map({ $0.lowerBound >= end }) ?? true else { return false }
        hole = start..<(data?.lowerBound ?? shape.fileByteCount)
        return true
    }

    /// The bytes of a free cluster; `nil` if enough was read.
    private mutating func readFree<S: Storage & ~Copyable>(
        _ cluster: UInt64, _ storage: borrowing S
    ) throws(QCOW2Error) -> [UInt8]? {
        let start = geometry.offset(ofCluster: cluster)
        let byteCount = min(geometry.clusterSize, shape.fileByteCount - start.rawValue)
        guard byteCount <= freeByteCount else { return nil }
        freeByteCount -= byteCount
        return try storage.readBytes(Int(byteCount), at: start)
    }
}
