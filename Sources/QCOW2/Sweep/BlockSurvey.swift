// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What reading all refcounts beside the references showed.
struct BlockSurvey: Sendable {
    /// Whether some refcount of a block changes, by the block's index.
    private(set) var hasChanges: [Bool]
    /// The last cluster in use that a block describes, by the block's index; zero for none.
    private(set) var lastUsed: [UInt64]
    /// Clusters that are free in the old state, in ascending order: the first ones, if there are very many.
    private(set) var free: [ClusterRun] = []
    /// Where nothing is in use, from there to the end of all numbers.
    private(set) var end: UInt64 = 1
    private var reader: RefcountReader

    /// The most free runs that are remembered: 2 MiB.
    private static let maximumFreeCount = 1 << 17

    init(_ table: RefcountTable) {
        hasChanges = [Bool](repeating: false, count: table.blockOffsets.count)
        lastUsed = [UInt64](repeating: 0, count: table.blockOffsets.count)
        reader = RefcountReader(table, readsAhead: true)
    }

    /// A survey in which nothing was found yet, with room for blocks that describe so many clusters.
    init(describing clusterCount: UInt64, in table: RefcountTable) {
        let perBlock = table.geometry.refcountsPerBlock
        let most = ImageGeometry.maximumRefcountTableByteCount / UInt64(RefcountTableEntry.byteCount)
        let count = max(table.blockOffsets.count, Int(min(most, (clusterCount + perBlock - 1) / perBlock)))
        hasChanges = [Bool](repeating: false, count: count)
        lastUsed = [UInt64](repeating: 0, count: count)
        reader = RefcountReader(table)
    }

    /// Notes what becomes of the refcounts of neighbouring clusters, which are free if they are zero before and after.
    mutating func note(_ piece: Range<UInt64>, _ old: [UInt64], _ new: [UInt64], hasChanges: Bool) {
        let index = reader.blockIndex(of: piece.lowerBound)
        let values = (0..<piece.count).map { old[$0] | new[$0] }
        // A cluster so far behind that no table can describe it is refused when the table is planned.
        if index < self.hasChanges.count {
            if hasChanges { self.hasChanges[index] = true }
            noteUsed(values, piece, index)
        }
        noteFree(values, piece, allOfIt: values.allSatisfy { $0 == 0 })
    }

    /// Notes that a block must be written anew.
    mutating func noteChange(_ index: Int) { hasChanges[index] = true }

    /// Compares the refcounts of a window's clusters with the references.
    ///
    /// Condition S1 of section "6.0 Model": no refcount is too low. And invariant I-20: none becomes too large.
    mutating func settle<Lane, S: Storage & ~Copyable>(
        _ window: inout CountWindow<Lane>, _ state: ImageState, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var first = window.range.lowerBound
        while first < window.range.upperBound {
            let piece = reader.piece(from: first, upTo: window.range.upperBound)
            let isDescribed = try reader.read(piece, from: storage)
            let count = Int(piece.upperBound - first)
            let index = state.refcounts.blockIndex(of: first)
            let settled = window.settle(
                reader.values, count: count, from: first, maximumRefcount: state.geometry.maximumRefcount)
            if settled.isBad { throw Self.complaint(window, reader.values, piece, state) }
            if isDescribed {
                if settled.hasChanges { hasChanges[index] = true }
                if settled.freeCount < count { noteUsed(reader.values, piece, index) }
            }
            if settled.freeCount > 0 { noteFree(reader.values, piece, allOfIt: settled.freeCount == count) }
            first = piece.upperBound
            try work.checkForWish()
        }
    }

    /// Notes that clusters have neither a refcount nor a reference.
    mutating func noteFree(_ clusters: Range<UInt64>) {
        guard !clusters.isEmpty else { return }
        addFree(ClusterRun(first: clusters.lowerBound, count: clusters.upperBound - clusters.lowerBound))
    }

    private mutating func noteUsed(_ values: [UInt64], _ piece: Range<UInt64>, _ index: Int) {
        guard let last = (0..<Int(piece.upperBound - piece.lowerBound)).last(where: { values[$0] != 0 }) else {
            return
        }
        lastUsed[index] = piece.lowerBound + UInt64(last)
        end = lastUsed[index] + 1
    }

    private mutating func noteFree(_ values: [UInt64], _ piece: Range<UInt64>, allOfIt: Bool) {
        guard !allOfIt else {
            return addFree(ClusterRun(first: piece.lowerBound, count: piece.upperBound - piece.lowerBound))
        }
        for index in 0..<Int(piece.upperBound - piece.lowerBound) where values[index] == 0 {
            addFree(ClusterRun(first: piece.lowerBound + UInt64(index), count: 1))
        }
    }

    private mutating func addFree(_ run: ClusterRun) {
        assert(run.count > 0 && (free.last.map { $0.end <= run.first } ?? true))
        if let last = free.last, last.end == run.first {
            free[free.count - 1].count += run.count
        } else if free.count < Self.maximumFreeCount {
            free.append(run)
        }
    }

    /// Which cluster's refcount is wrong, and how.
    private static func complaint<Lane>(
        _ window: CountWindow<Lane>, _ stored: [UInt64], _ piece: Range<UInt64>, _ state: ImageState
    ) -> QCOW2Error {
        var tooMany: QCOW2Error?
        for cluster in piece {
            let (refcount, old) = (stored[Int(cluster - piece.lowerBound)], window.old(cluster))
            let place = state.geometry.offset(ofCluster: cluster)
            if refcount < old { return .untrusted(refcount, UInt32(clamping: old), at: place) }
            if tooMany == nil, window.isTooLarge(cluster, refcount, maximum: state.geometry.maximumRefcount) {
                tooMany = .tooManyReferences(state.geometry, at: place)
            }
        }
        return tooMany ?? .overflow("number of references")
    }
}

extension QCOW2Error {
    static func untrusted(_ refcount: UInt64, _ references: UInt32, at offset: HostOffset) -> Self {
        Self(
            .corrupt,
            refcount == 0
                ? "A cluster in use has the refcount 0, so the refcounts can't be trusted."
                : "A cluster has the refcount \(refcount) but \(references) references.", at: offset)
    }

    static func tooManyReferences(_ geometry: ImageGeometry, at offset: HostOffset) -> Self {
        Self(
            .limitExceeded,
            "A cluster would have more than \(geometry.maximumRefcount) references, the most that "
                + "\(geometry.refcountBits)-bit refcounts can count; delete snapshots first.", at: offset)
    }
}
