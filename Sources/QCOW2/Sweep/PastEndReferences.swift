// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// References to clusters past the end of the file.
struct PastEndReferences: Sendable {
    /// By cluster, as many as are remembered.
    private(set) var counts: [UInt64: UInt64] = [:]
    /// Whether there were more.
    private(set) var isCut = false

    /// 40 MiB or so.
    private static let maximumCount = 1 << 20

    mutating func add(_ run: ClusterRun, _ weight: UInt64, from fileClusterCount: UInt64) {
        for cluster in max(run.first, fileClusterCount)..<max(run.end, fileClusterCount) {
            if counts.count < Self.maximumCount || counts[cluster] != nil {
                counts[cluster, default: 0] &+= weight
            } else {
                isCut = true
            }
        }
    }
}
