// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The parts in which a file's clusters are looked at, so that memory is bounded by a budget and not by the file.
struct ClusterWindows: Sendable {
    /// All clusters that are to be looked at.
    let clusterCount: UInt64
    /// How many windows there are.
    let count: UInt64
    /// The most clusters in a window.
    let capacity: Int

    /// Windows of equal size, at borders where a piece of refcounts may start.
    ///
    /// - Parameters:
    ///   - clusterCount: All clusters that are to be looked at.
    ///   - laneByteCount: Bytes of memory for each cluster of a window.
    ///   - budget: Bytes of memory of which half is for the lanes, and the rest for what is found.
    init(clusterCount: UInt64, laneByteCount: Int, budget: Int) {
        let most = UInt64(max(RefcountReader.pieceCount, budget / 2 / laneByteCount))
        count = (clusterCount + most - 1) / most
        let piece = UInt64(RefcountReader.pieceCount)
        let even = count == 0 ? 0 : (clusterCount + count - 1) / count
        capacity = Int((even + piece - 1) / piece * piece)
        self.clusterCount = clusterCount
    }

    /// The clusters of the window at an index.
    func range(_ index: UInt64) -> Range<UInt64> {
        (index * UInt64(capacity))..<min((index + 1) * UInt64(capacity), clusterCount)
    }

    /// The index of the window with a cluster.
    func index(of cluster: UInt64) -> UInt64 { cluster / UInt64(max(1, capacity)) }
}
