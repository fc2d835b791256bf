// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The ranges of clusters that are counted at a time, so that memory is bounded by a budget and not by the file.
struct ClusterWindows: Sendable {
    /// In ascending order; parts of the file without a refcount or a reference are in none.
    let ranges: [Range<UInt64>]

    /// The most clusters in a window.
    var capacity: Int { ranges.reduce(0) { max($0, $1.count) } }

    /// Windows over the occupied parts of a file, as equal as that goes, at borders where a piece of refcounts may
    /// start.
    ///
    /// - Parameters:
    ///   - occupied: What is to be looked at.
    ///   - laneByteCount: Bytes of memory for each cluster of a window.
    ///   - budget: Bytes of memory of which half is for the lanes, and the rest for what is found.
    init(_ occupied: OccupiedClusters, laneByteCount: Int, budget: Int) {
        let most = Self.most(laneByteCount: laneByteCount, budget: budget)
        let whole = Self.split(occupied.ranges, capacity: most)
        let total = whole.reduce(0) { $0 + UInt64($1.count) }
        let even = whole.isEmpty ? most : (total + UInt64(whole.count) - 1) / UInt64(whole.count)
        let piece = UInt64(RefcountReader.pieceCount)
        let evenly = Self.split(occupied.ranges, capacity: (even + piece - 1) / piece * piece)
        ranges = evenly.count <= whole.count ? evenly : whole
        assert(ranges.areAscendingAndDisjoint && ranges.allSatisfy { UInt64($0.count) <= most })
    }

    /// The most clusters that a budget allows a window to have.
    private static func most(laneByteCount: Int, budget: Int) -> UInt64 {
        let piece = RefcountReader.pieceCount
        return UInt64(max(piece, budget / 2 / laneByteCount / piece * piece))
    }

    private static func split(_ occupied: [Range<UInt64>], capacity: UInt64) -> [Range<UInt64>] {
        var ranges: [Range<UInt64>] = []
        for part in occupied {
            var first = part.lowerBound
            // What a window has room for after a gap needs no window of its own.
            if let last = ranges.last, first < last.lowerBound + capacity {
                let end = min(part.upperBound, last.lowerBound + capacity)
                ranges[ranges.count - 1] = last.lowerBound..<end
                first = end
            }
            while first < part.upperBound {
                let end = min(part.upperBound, first + capacity)
                ranges.append(first..<end)
                first = end
            }
        }
        return ranges
    }

    /// The window with a cluster, if it is in one.
    func range(of cluster: UInt64) -> Range<UInt64>? {
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound <= cluster { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].contains(cluster) ? ranges[low] : nil
    }
}
