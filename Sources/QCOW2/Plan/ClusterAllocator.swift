// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Hands out clusters that are free in the old state, from the start of the file upwards.
struct ClusterAllocator: Sendable {
    private let geometry: ImageGeometry
    /// Known free runs, of which those before ``head`` are used up.
    private var runs: [ClusterRun]
    private var head = 0
    /// An index of the free runs by their length, once one is needed.
    private var longest: LongestRuns?
    /// From here on, everything is free.
    private var end: UInt64
    /// Except these, in ascending order: an entry that shouldn't be points there.
    private let reserved: [UInt64]

    init(_ blocks: BlockSurvey, in geometry: ImageGeometry, avoiding reserved: [UInt64] = []) {
        self.geometry = geometry
        self.reserved = reserved
        end = blocks.end
        runs = blocks.free
        assert(runs.areAscendingAndDisjoint && end > 0)
        while let last = runs.last, last.end > end {
            if last.first >= end {
                runs.removeLast()
            } else {
                runs[runs.count - 1].count = end - last.first
            }
        }
    }

    /// From now on, takes only clusters behind everything in use, and behind `clusterCount` clusters.
    mutating func takeOnlyBehind(_ clusterCount: UInt64) {
        runs = []
        head = 0
        longest = nil
        end = max(end, clusterCount)
    }

    /// Takes neighbouring clusters.
    ///
    /// - Throws: ``QCOW2Error/Code/limitExceeded`` when no host offset of the format can address them.
    mutating func allocate(_ clusterCount: UInt64) throws(QCOW2Error) -> ClusterRun {
        while head < runs.count, runs[head].count == 0 { head += 1 }
        if let index = firstFit(clusterCount) {
            let run = ClusterRun(first: runs[index].first, count: clusterCount)
            runs[index].first += clusterCount
            runs[index].count -= clusterCount
            longest?.update(index, to: runs[index].count)
            return run
        }
        // The last free run may go on behind the last used cluster: it was cut there, so it ends before one.
        for cluster in reserved where cluster >= end && cluster - end < clusterCount { end = cluster + 1 }
        let run = ClusterRun(first: end, count: clusterCount)
        guard run.end <= ImageGeometry.hostOffsetLimit >> UInt64(geometry.clusterBits) else {
            throw QCOW2Error(.limitExceeded, "The image file would grow past the largest offset of the format.")
        }
        end = run.end
        return run
    }

    /// The first free run that is long enough.
    private mutating func firstFit(_ clusterCount: UInt64) -> Int? {
        let near = min(runs.count, head + 64)
        for index in head..<max(head, near) where runs[index].count >= clusterCount { return index }
        guard near < runs.count else { return nil }
        if longest == nil { longest = LongestRuns(runs) }
        return longest?.first(ofAtLeast: clusterCount)
    }

    /// Takes back clusters that nothing refers to any more: runs in the order of the file that don't touch each other.
    mutating func free(_ freed: [ClusterRun]) {
        // One by one each costs a move of those behind it; many are merged at once.
        guard freed.count > 64 else { return freed.forEach { free($0) } }
        longest = nil
        var merged: [ClusterRun] = []
        merged.reserveCapacity(runs.count - head + freed.count)
        var (left, right) = (head, 0)
        while left < runs.count || right < freed.count {
            let takesLeft = right == freed.count || left < runs.count && runs[left].first < freed[right].first
            let run = takesLeft ? runs[left] : freed[right]
            if takesLeft { left += 1 } else { right += 1 }
            guard run.count > 0 else { continue }
            if let last = merged.last, last.end == run.first {
                merged[merged.count - 1].count += run.count
            } else {
                merged.append(run)
            }
        }
        assert(merged.areAscendingAndDisjoint)
        while let last = merged.last, last.end == end {
            end = last.first
            merged.removeLast()
        }
        runs = merged
        head = 0
    }

    /// Takes back clusters that nothing refers to any more.
    mutating func free(_ run: ClusterRun) {
        longest = nil
        guard run.end < end else {
            end = run.first
            while let last = runs.last, last.count == 0 || last.end == end {
                if last.count > 0 { end = last.first }
                runs.removeLast()
            }
            return head = min(head, runs.count)
        }
        // The first run behind it; those that are used up keep their place.
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].first < run.first { low = middle + 1 } else { high = middle }
        }
        if low > 0, runs[low - 1].end == run.first {
            runs[low - 1].count += run.count
            low -= 1
        } else if low < runs.count, runs[low].count > 0, runs[low].first == run.end {
            runs[low].first = run.first
            runs[low].count += run.count
        } else {
            runs.insert(run, at: low)
        }
        head = min(head, low)
    }
}

/// Finds the first of many runs that has some length, without looking at all of them.
///
/// A tree over the runs in which each node holds the longest run below it; a search or a change costs O(log n).
private struct LongestRuns: Sendable {
    private let leafCount: Int
    /// The root is at 1, and the two below a node at twice its index and next to it.
    private var nodes: [UInt64]

    init(_ runs: [ClusterRun]) {
        var leafCount = 1
        while leafCount < runs.count { leafCount *= 2 }
        self.leafCount = leafCount
        nodes = [UInt64](repeating: 0, count: 2 * leafCount)
        for (index, run) in runs.enumerated() { nodes[leafCount + index] = run.count }
        for node in stride(from: leafCount - 1, to: 0, by: -1) {
            nodes[node] = max(nodes[2 * node], nodes[2 * node + 1])
        }
    }

    func first(ofAtLeast count: UInt64) -> Int? {
        guard nodes[1] >= count else { return nil }
        var node = 1
        while node < leafCount { node = nodes[2 * node] >= count ? 2 * node : 2 * node + 1 }
        return node - leafCount
    }

    mutating func update(_ index: Int, to count: UInt64) {
        var node = leafCount + index
        nodes[node] = count
        while node > 1 {
            node /= 2
            nodes[node] = max(nodes[2 * node], nodes[2 * node + 1])
        }
    }
}

/// Additions to the refcounts of single clusters, beside what counting the trees says.
struct RefcountAdjustments: Sendable {
    /// Where the sum of all additions that reach a cluster changes, and by how much.
    private var events: [(cluster: UInt64, change: Int64)] = []
    private var next = 0
    private var sum: Int64 = 0

    mutating func add(_ run: ClusterRun, _ change: Int64) {
        events.append((run.first, change))
        events.append((run.end, -change))
    }

    /// Puts the additions in the order of the file, once there are no more.
    mutating func sort() { events.sort { $0.cluster < $1.cluster } }

    /// Adds them to refcounts; pieces must come in the order of the file.
    mutating func apply(to refcounts: inout [UInt64], of piece: Range<UInt64>) {
        var cluster = piece.lowerBound
        while cluster < piece.upperBound {
            while next < events.count, events[next].cluster <= cluster {
                sum += events[next].change
                next += 1
            }
            let border = next < events.count ? min(events[next].cluster, piece.upperBound) : piece.upperBound
            if sum != 0 {
                for index in Int(cluster - piece.lowerBound)..<Int(border - piece.lowerBound) {
                    refcounts[index] &+= UInt64(bitPattern: sum)
                }
            }
            cluster = border
        }
    }
}
