// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What guest writes have changed since the last commit, and what they need to know of the image.
///
/// Section "6.6 Guest write path", with the commit of section "6.3" in place of the barriers of "6.5".
///
/// Data goes straight into the file: in place where the refcount says that nobody else refers to the cluster, else
/// into a cluster that is free in the committed state. Tables and refcounts change in memory alone, until ``planned``
/// makes one update of them. So the file holds the committed state at any moment, nothing leaks after a crash, and a
/// flush costs two barriers however many clusters were written.
///
/// The copied flags of the file are not relied on: a cluster is written in place if its refcount is one, and that
/// no refcount is too low was counted when the session began.
struct WriteSession: Sendable {
    let geometry: ImageGeometry
    let compressionType: CompressionType
    /// Bytes of the disk, in whole sectors.
    let diskSize: UInt64
    let backing: BackingAccess
    var tables: SessionTables
    var refcounts: SessionRefcounts
    private(set) var allocator: ClusterAllocator
    /// Clusters that only the committed state uses; free after the next commit.
    private(set) var released: [ClusterRun] = []
    /// Those of them that held guest data, whose space is worth giving back.
    private(set) var releasedData: [ClusterRun] = []
    /// The file's length, or more after a write that failed.
    var fileByteCount: UInt64
    /// Whether data was written that no barrier followed.
    var hasUnflushedData = false
    /// Whether the pending changes can't be committed any more, as the disk may not have the data they refer to.
    var isLost = false

    init(_ state: ImageState, _ blocks: BlockSurvey, _ l1: [L1Entry], _ backing: BackingAccess) {
        geometry = state.geometry
        compressionType = state.header.compressionType ?? .deflate
        diskSize = state.header.size & ~(ImageGeometry.sectorSize - 1)
        self.backing = backing
        tables = SessionTables(l1, state.geometry)
        refcounts = SessionRefcounts(state.refcounts)
        allocator = ClusterAllocator(blocks, in: state.geometry)
        fileByteCount = state.fileByteCount
    }

    /// Whether there is something to commit.
    var hasChanges: Bool { tables.dirtyCount > 0 || refcounts.dirtyCount > 0 }

    /// Bytes of tables and refcounts that wait for a commit.
    var dirtyByteCount: Int { (tables.dirtyCount + refcounts.dirtyCount) * geometry.clusterByteCount }

    /// Forgets what didn't change and is more than about `byteCount` bytes.
    mutating func trim(to byteCount: Int) {
        let limit = max(4, byteCount / geometry.clusterByteCount)
        tables.trim(to: limit)
        refcounts.trim(to: limit)
    }

    /// Takes free clusters, neighbours, and counts one reference to each.
    mutating func allocate<S: Storage & ~Copyable>(
        _ clusterCount: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) -> ClusterRun {
        let run = try allocator.allocate(clusterCount)
        let tableEntryLimit = ImageGeometry.maximumRefcountTableByteCount / UInt64(RefcountTableEntry.byteCount)
        guard (run.end - 1) / geometry.refcountsPerBlock < tableEntryLimit else {
            allocator.free(run)
            throw QCOW2Error(.limitExceeded, "The refcount table would be larger than 8 MiB.")
        }
        for cluster in run.first..<run.end { try refcounts.set(1, of: cluster, from: storage) }
        return run
    }

    /// Takes back a reference to a cluster.
    ///
    /// What then has none is free after the next commit, no sooner: the committed state may refer to it.
    mutating func release<S: Storage & ~Copyable>(
        _ cluster: UInt64, isData: Bool, from storage: borrowing S
    ) throws(QCOW2Error) {
        let refcount = try refcounts.refcount(of: cluster, from: storage)
        guard refcount > 0 else { throw .untrusted(0, 1, at: geometry.offset(ofCluster: cluster)) }
        try refcounts.set(refcount - 1, of: cluster, from: storage)
        guard refcount == 1 else { return }
        Self.append(cluster, to: &released)
        if isData { Self.append(cluster, to: &releasedData) }
    }

    private static func append(_ cluster: UInt64, to runs: inout [ClusterRun]) {
        if let last = runs.last, last.end == cluster {
            runs[runs.count - 1].count += 1
        } else {
            runs.append(ClusterRun(first: cluster, count: 1))
        }
    }

    /// Takes back the references of an L2 entry.
    mutating func release<S: Storage & ~Copyable>(
        _ entry: L2Entry, from storage: borrowing S
    ) throws(QCOW2Error) {
        switch entry.mapping(in: geometry) {
        case .unallocated, .zero(preallocated: nil): break
        case .standard(let host), .zero(preallocated: .some(let host)):
            try release(geometry.cluster(at: host), isData: true, from: storage)
        case .compressed(let compressed):
            let run = compressed.run(in: geometry)
            for cluster in run.first..<run.end { try release(cluster, isData: true, from: storage) }
        }
    }

    /// Makes what was released available, once a commit is on the disk.
    ///
    /// - Returns: The runs that held data, in the order of the file.
    mutating func recycle() -> [ClusterRun] {
        allocator.free(Self.merged(released))
        let data = Self.merged(releasedData)
        released = []
        releasedData = []
        return data
    }

    private static func merged(_ runs: [ClusterRun]) -> [ClusterRun] {
        var merged: [ClusterRun] = []
        for run in runs.sorted(by: { $0.first < $1.first }) {
            if let last = merged.last, last.end == run.first {
                merged[merged.count - 1].count += run.count
            } else {
                merged.append(run)
            }
        }
        return merged
    }

    /// Where a guest cluster's entry is: the L1 index, and the byte position in the L2 table.
    func place(of guestCluster: UInt64) -> (l1: Int, position: Int) {
        let indices = geometry.indices(of: GuestOffset(guestCluster << UInt64(geometry.clusterBits)))
        // Safe: inside the disk, which at most 2^22 L1 entries map.
        return (Int(indices.l1), indices.l2 * geometry.l2EntryByteCount)
    }

    /// A guest cluster's entry, and how its units are mapped.
    mutating func entry<S: Storage & ~Copyable>(
        of guestCluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) -> (L2Entry, ClusterUnits) {
        let place = place(of: guestCluster)
        let table = try tables.load(place.l1, from: storage)
        let entry = L2Entry(rawValue: table.span.loadBigEndian(at: place.position))
        var units = ClusterUnits(entry, geometry, in: table.span, at: place.position)
        if entry.isCompressed { units.allocateAll() }
        return (entry, units)
    }

    mutating func setEntry<S: Storage & ~Copyable>(
        _ entry: L2Entry, _ units: ClusterUnits, of guestCluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) {
        let place = place(of: guestCluster)
        try tables.set(entry, units, at: place.position, of: place.l1, from: storage)
    }
}

/// How guest writes come by what the backing file holds.
struct BackingAccess: Sendable {
    /// Whether there is a backing file.
    let exists: Bool
    /// Reads it; `nil` when nobody may.
    let reader: GuestWriteOptions.BackingReader?
}
