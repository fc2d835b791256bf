// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2
import QCOW2Testing

/// What an image's usage must be, counted cluster by cluster and set by set, without the library.
public struct UsageModel: Hashable, Sendable {
    /// Mapped, exclusive, shared, compressed and stored bytes of each state, the active one first.
    public let states: [[Int]]
    /// Bytes of data, of metadata, leaked ones, and free ones.
    public let file: [Int]

    /// Counts in an image's bytes.
    public init(_ bytes: [UInt8], clusterSize: Int) {
        let count = ConsistencyCount(bytes)
        let trees = count.trees()
        var owners: [Int: Set<Int>] = [:]
        for (index, tree) in trees.enumerated() {
            for cluster in tree.l1Clusters { owners[cluster, default: []].insert(index) }
            for (table, targets) in tree.l2Targets {
                for cluster in targets.union([table]) { owners[cluster, default: []].insert(index) }
            }
        }
        states = trees.enumerated().map { index, tree in
            let exclusive = owners.values.count { $0 == [index] }
            let occupied = tree.l2Targets.values.reduce(tree.l1Clusters.count) { $0 + 1 + $1.count }
            return [
                tree.mappedCount * clusterSize, exclusive * clusterSize, (occupied - exclusive) * clusterSize,
                tree.compressedCount * clusterSize, tree.compressedSectorCount * 512,
            ]
        }
        let fileClusters = Set(0..<((bytes.count + clusterSize - 1) / clusterSize))
        let data = trees.flatMap(\.l2Targets.values).reduce(into: Set<Int>()) { $0.formUnion($1) }
        let referenced = count.referencedClusters
        let leaked = ConsistencyCount.usedClusters(in: bytes).subtracting(referenced).intersection(fileClusters)
        file = [
            data.count, referenced.subtracting(data).count, leaked.count,
            fileClusters.subtracting(referenced).subtracting(leaked).count,
        ].map { $0 * clusterSize }
    }

    /// The same numbers as the library says them.
    public init(_ usage: ImageUsage) {
        states = ([usage.active] + usage.snapshots).map { state in
            [
                state.mappedByteCount, state.exclusiveByteCount, state.sharedByteCount, state.compressedByteCount,
                state.compressedStoredByteCount,
            ].map { Int($0) }
        }
        file = [
            usage.file.dataByteCount, usage.file.metadata.total, usage.file.leakedByteCount, usage.file.freeByteCount,
        ].map { Int($0) }
    }

    /// Bytes of clusters with a refcount.
    public static func usedByteCount(_ bytes: [UInt8], clusterSize: Int) -> Int {
        ConsistencyCount.usedClusters(in: bytes).count * clusterSize
    }
}
