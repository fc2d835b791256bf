// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A set of a file's clusters, in memory that grows with the parts of the file that are mentioned.
struct ClusterSet: Sendable {
    /// The most clusters that a set is made for: 128 TiB of clusters of 64 KiB.
    static let maximumClusterCount: UInt64 = 1 << 31
    private static let wordsPerPage = 64
    private static let clustersPerPage: UInt64 = 4096
    private static let fullPage = [UInt64](repeating: .max, count: wordsPerPage)

    /// How many clusters there can be.
    let clusterCount: UInt64
    /// One after the largest cluster ever inserted.
    private(set) var end: UInt64 = 0
    /// A bit for each cluster; an empty page has none set.
    private var pages: [[UInt64]]

    /// An empty set; `nil` when the file has more clusters than a set is made for.
    init?(clusterCount: UInt64) {
        guard clusterCount <= Self.maximumClusterCount else { return nil }
        self.clusterCount = clusterCount
        pages = [[UInt64]](repeating: [], count: Int((clusterCount + Self.clustersPerPage - 1) / Self.clustersPerPage))
    }

    func contains(_ cluster: UInt64) -> Bool {
        guard cluster < clusterCount else { return false }
        let page = pages[Int(cluster / Self.clustersPerPage)]
        guard !page.isEmpty else { return false }
        let bit = Int(cluster % Self.clustersPerPage)
        return page[bit / 64] >> UInt64(bit % 64) & 1 == 1
    }

    /// Adds a cluster of the file.
    ///
    /// - Returns: Whether it was not in the set; false for one past the end.
    @discardableResult
    mutating func insert(_ cluster: UInt64) -> Bool {
        guard cluster < clusterCount, !contains(cluster) else { return false }
        let page = Int(cluster / Self.clustersPerPage)
        if pages[page].isEmpty { pages[page] = [UInt64](repeating: 0, count: Self.wordsPerPage) }
        let bit = Int(cluster % Self.clustersPerPage)
        pages[page][bit / 64] |= 1 << UInt64(bit % 64)
        end = max(end, cluster + 1)
        return true
    }

    /// Adds those clusters of a run that the file has.
    mutating func insert(_ run: ClusterRun) {
        let (unclipped, overflow) = run.first.addingReportingOverflow(run.count)
        let stop = min(overflow ? .max : unclipped, clusterCount)
        var cluster = run.first
        while cluster < stop {
            if cluster % Self.clustersPerPage == 0, stop - cluster >= Self.clustersPerPage {
                pages[Int(cluster / Self.clustersPerPage)] = Self.fullPage
                cluster += Self.clustersPerPage
            } else {
                insert(cluster)
                cluster += 1
            }
        }
        if run.first < stop { end = max(end, stop) }
    }

    /// How many clusters are in the set.
    var memberCount: UInt64 {
        pages.reduce(0) { sum, page in sum + page.reduce(0) { $0 + UInt64($1.nonzeroBitCount) } }
    }

    /// The next clusters from `start` on that are not in the set, or that are.
    func nextRun(from start: UInt64, inSet isMember: Bool) -> ClusterRun? {
        guard let first = firstCluster(from: start, inSet: isMember) else { return nil }
        let end = firstCluster(from: first, inSet: !isMember) ?? clusterCount
        return ClusterRun(first: first, count: end - first)
    }

    private func firstCluster(from start: UInt64, inSet isMember: Bool) -> UInt64? {
        var cluster = start
        while cluster < clusterCount {
            let page = pages[Int(cluster / Self.clustersPerPage)]
            let bit = Int(cluster % Self.clustersPerPage)
            if page.isEmpty {
                if !isMember { return cluster }
                cluster += Self.clustersPerPage - UInt64(bit)
                continue
            }
            let word = (isMember ? page[bit / 64] : ~page[bit / 64]) >> UInt64(bit % 64)
            if word != 0 {
                let found = cluster + UInt64(word.trailingZeroBitCount)
                return found < clusterCount ? found : nil
            }
            cluster += UInt64(64 - bit % 64)
        }
        return nil
    }
}
