// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What is looked at only where counting showed that something is wrong, or may be.
extension Checker {
    /// Notes each entry of some L2 tables whose copied flag contradicts the stored refcount.
    ///
    /// Invariant I-22.
    mutating func reportFlags<Lane, S: Storage & ~Copyable>(
        of suspects: [Int], _ window: CheckWindow<Lane>, _ storage: borrowing S
    ) throws(QCOW2Error) {
        var isSuspect = [Bool](repeating: false, count: tally.l2Tables.count)
        for index in suspects { isSuspect[index] = true }
        let (geometry, sink, tally) = (geometry, sink, tally)
        try forEachTable(near: window.range, storage, where: { isSuspect[$0] }) { table, bytes, scan in
            scan.forEachFlag(in: bytes) { index, cluster, isCopied in
                guard window.covers(cluster), window.isOne(cluster) != isCopied else { return }
                let place = tally.place(table, index)
                let raw: UInt64 = bytes.loadBigEndian(at: place.position)
                guard geometry.isAligned(HostOffset(raw & L2Entry.Bits.hostOffset)) else { return }
                sink.add(
                    .copiedFlagL2, at: place.offset, in: "L2 table", index: UInt64(index),
                    "The L2 entry for guest offset \(tally.guestOffset(place)) has the copied flag "
                        + (isCopied ? "set, but its cluster's refcount isn't 1." : "clear, but the refcount is 1."))
            }
        }
    }

    /// Notes entries of the active tree that let a guest write to what a snapshot refers to.
    ///
    /// Invariant I-24, condition S2 of section "6.0 Model".
    mutating func findWritableSnapshots<Lane, S: Storage & ~Copyable>(
        in window: CheckWindow<Lane>, _ storage: borrowing S
    ) throws(QCOW2Error) {
        var reach = CheckWindow<Lane>(window.range)
        // The lanes were wide enough for all references.
        _ = try countSnapshots(in: &reach, storage)
        let (sink, tally) = (sink, tally)
        let sweep = tally.sweep
        try forEachTable(
            near: reach.range, storage, where: { sweep.tables[$0].isActive && sweep.contents[$0].flags.isAnySet }
        ) { table, bytes, scan in
            scan.forEachFlag(in: bytes) { index, cluster, isCopied in
                guard isCopied, reach.covers(cluster), reach.count(cluster) > 0 else { return }
                let place = tally.place(table, index)
                sink.add(
                    .snapshotWritable, at: place.offset, in: "L2 table", index: UInt64(index),
                    "The L2 entry for guest offset \(tally.guestOffset(place)) has the copied flag, but a snapshot "
                        + "uses its cluster, too: the next guest write there changes the snapshot.")
            }
        }
    }

    /// Notes data in metadata, and clusters that are mapped at two guest offsets.
    ///
    /// Invariants I-9 and I-16. Snapshots share clusters at the same guest offset only. Takes four bytes per cluster,
    /// so the window is looked at in parts.
    mutating func findSharedClusters<S: Storage & ~Copyable>(
        in range: Range<UInt64>, _ storage: borrowing S
    ) throws(QCOW2Error) {
        for part in windows(of: range, laneByteCount: 4).ranges {
            var users = ClusterUsers(part)
            for table in subject.tables { users.addMetadata(table.run) }
            for clusters in [subject.singles.refcountBlocks, subject.singles.bitmapData] {
                for cluster in clusters.clusters(in: part) { users.addMetadata(ClusterRun(first: cluster, count: 1)) }
            }
            for index in 0..<tally.l2Tables.count { users.addMetadata(tally.sweep.cluster(of: index)) }
            let (geometry, sink, tally, claims) = (geometry, sink, tally, claims)
            func report(_ table: Int, _ run: ClusterRun, _ firstIndex: Int, _ firstUser: UInt32) {
                for distance in 0..<run.count {
                    let cluster = run.first + distance
                    let user = users.user(of: cluster)
                    guard user != 0, user != firstUser &+ UInt32(truncatingIfNeeded: distance) else { continue }
                    let place = tally.place(table, firstIndex + Int(distance))
                    let host = geometry.offset(ofCluster: cluster)
                    if user == ClusterUsers.metadata {
                        let owner = claims.owner(of: ClusterRun(first: cluster, count: 1))
                        sink.add(
                            .dataInMetadata, at: place.offset, in: "L2 table",
                            index: UInt64(firstIndex) + distance,
                            "The L2 entry for guest offset \(tally.guestOffset(place)) points to \(host), which "
                                + "belongs to \(owner.map { "the " + $0.name } ?? "an L2 table").")
                    } else {
                        let other = geometry.offset(ofCluster: UInt64(user - 1))
                        sink.add(
                            .clusterMappedTwice, at: place.offset, in: "L2 table",
                            index: UInt64(firstIndex) + distance,
                            "The cluster at \(host) is mapped at guest offset \(tally.guestOffset(place)), "
                                + "and at \(other), too.")
                    }
                }
            }
            try forEachTable(near: part, storage, where: { _ in true }) {
                (table, bytes, scan) throws(QCOW2Error) in
                let base = UInt32(truncatingIfNeeded: tally.firstGuestCluster(table) + 1)
                func add(_ run: ClusterRun, _ index: Int) {
                    let user = base &+ UInt32(truncatingIfNeeded: index)
                    if users.add(run, firstUser: user) { report(table, run, index, user) }
                }
                _ = try scan.forEachRun(in: bytes, splitting: true) { run, _, index in
                    add(run, index)
                } odd: { (entry, position, _) throws(QCOW2Error) in
                    let index = position / geometry.l2EntryByteCount
                    let target = tally.target(of: entry, in: bytes, tally.place(table, index))
                    if target.carriesFlag, let run = target.run { add(run, index) }
                }
            }
        }
    }
}

/// Which guest cluster each host cluster is used for, by its first user; or that it is metadata.
struct ClusterUsers {
    private let range: Range<UInt64>
    private var users: [UInt32]

    static let metadata = UInt32.max

    init(_ range: Range<UInt64>) {
        self.range = range
        users = [UInt32](repeating: 0, count: Int(range.count))
    }

    private func part(of run: ClusterRun) -> Range<Int>? {
        let first = max(run.first, range.lowerBound)
        let end = min(run.end, range.upperBound)
        return first < end ? Int(first - range.lowerBound)..<Int(end - range.lowerBound) : nil
    }

    mutating func addMetadata(_ run: ClusterRun) {
        guard let part = part(of: run) else { return }
        for index in part { users[index] = Self.metadata }
    }

    /// Adds the clusters of a run, which neighbouring guest clusters use.
    ///
    /// - Returns: Whether some cluster has another user already.
    mutating func add(_ run: ClusterRun, firstUser: UInt32) -> Bool {
        guard let part = part(of: run) else { return false }
        var user = firstUser &+ UInt32(truncatingIfNeeded: UInt64(part.lowerBound) &+ range.lowerBound &- run.first)
        var differs = false
        for index in part {
            let known = users[index]
            differs = differs || (known != 0 && known != user)
            users[index] = known == 0 ? user : known
            user &+= 1
        }
        return differs
    }

    /// The guest cluster that uses a cluster first, plus one; 0 if none does, or the range doesn't cover it.
    func user(of cluster: UInt64) -> UInt32 {
        range.contains(cluster) ? users[Int(cluster - range.lowerBound)] : 0
    }
}
