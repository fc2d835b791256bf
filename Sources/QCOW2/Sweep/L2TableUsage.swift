// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How much an L2 table refers to.
struct L2TableUsage: Sendable {
    /// Entries that refer to a host cluster of their own, or to a compressed cluster.
    var mappedCount: UInt32 = 0
    /// Distinct host clusters.
    var hostClusterCount: UInt32 = 0
    var compressedCount: UInt32 = 0
    /// Sectors that compressed clusters touch; at most 2 to the power of 31.
    var compressedSectorCount: UInt32 = 0
    /// Where the last compressed cluster ended.
    private var compressedEnd: UInt64 = 0
    private var compressedFirst: UInt64 = 0
    /// Whether compressed clusters aren't in the order of the file, and so may share a host cluster unseen.
    private(set) var isUnordered = false

    /// Adds a run of host clusters, or those of one compressed cluster.
    ///
    /// Safe: a table has at most 262,144 entries.
    @inline(__always)
    mutating func note(_ run: ClusterRun, _ compressed: CompressedCluster?) {
        guard let compressed else {
            mappedCount &+= UInt32(truncatingIfNeeded: run.count)
            hostClusterCount &+= UInt32(truncatingIfNeeded: run.count)
            return
        }
        note(compressed, run)
    }

    private mutating func note(_ compressed: CompressedCluster, _ run: ClusterRun) {
        mappedCount &+= 1
        compressedCount &+= 1
        compressedSectorCount &+= UInt32(truncatingIfNeeded: compressed.sectorCount)
        isUnordered = isUnordered || run.first < compressedFirst
        compressedFirst = run.first
        // In order, only the last host cluster can be one that was counted already.
        let new = max(run.end, compressedEnd) - max(run.first, compressedEnd)
        hostClusterCount &+= UInt32(truncatingIfNeeded: min(new, run.count))
        compressedEnd = max(compressedEnd, run.end)
    }

    /// Counts the distinct host clusters of a table whose compressed clusters aren't in the order of the file.
    mutating func recount(_ bytes: Span<UInt8>, at table: HostOffset, _ scan: L2TableScan) throws(QCOW2Error) {
        var runs: [ClusterRun] = []
        hostClusterCount = 0
        _ = try scan.forEachTarget(in: bytes, at: table) { run, compressed in
            if compressed == nil {
                hostClusterCount &+= UInt32(truncatingIfNeeded: run.count)
            } else {
                runs.append(run)
            }
        }
        runs.sort { $0.first < $1.first }
        var end: UInt64 = 0
        for run in runs where run.end > end {
            hostClusterCount &+= UInt32(truncatingIfNeeded: run.end - max(run.first, end))
            end = run.end
        }
    }
}
