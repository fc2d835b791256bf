// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Finds clusters that are free in the old state, from the start of the file upwards.
struct ClusterAllocator: Sendable {
    private let stored: StoredRefcounts
    /// No cluster below is free.
    private var lowest: UInt64 = 1

    init(_ stored: StoredRefcounts) { self.stored = stored }

    /// Takes neighbouring clusters that neither the file's refcounts nor `counts`, the plan's, have in use.
    ///
    /// - Throws: ``QCOW2Error/Code/limitExceeded`` when no host offset of the format can address them.
    mutating func allocate(_ clusterCount: UInt64, unusedIn counts: ClusterCounts) throws(QCOW2Error) -> ClusterRun {
        var run = ClusterRun(first: lowest, count: 0)
        var seesOnlyUsed = true
        while run.count < clusterCount {
            let cluster = run.end
            if stored[cluster] == 0, counts[cluster] == 0 {
                run.count += 1
                seesOnlyUsed = false
            } else {
                run = ClusterRun(first: cluster + 1, count: 0)
                if seesOnlyUsed { lowest = run.first }
            }
        }
        if run.first == lowest { lowest = run.end }
        guard run.end <= ImageGeometry.hostOffsetLimit >> UInt64(stored.geometry.clusterBits) else {
            throw QCOW2Error(.limitExceeded, "The image file would grow past the largest offset of the format.")
        }
        return run
    }
}
