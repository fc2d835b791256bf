// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A set of a file's clusters, in memory that grows with the parts of the file that are mentioned.
///
/// A bit for each cluster, in pages of 4096 of them, of which only so many are kept.
struct ClusterSet: Sendable {
    /// The most pages of a set that knows all that is in use: 32 MiB of bits, which are 16 TiB of clusters of 64 KiB.
    static let pageLimit = 1 << 16
    /// The same for a set of a part of it.
    static let partPageLimit = 1 << 14
    private static let wordsPerPage = 64
    private static let clustersPerPage: UInt64 = 4096
    private static let fullPage = [UInt64](repeating: .max, count: wordsPerPage)
    /// The most pages of a file for which there is a place for each, where it is found at once.
    private static let maximumDensePageCount: UInt64 = 1 << 19

    /// How many clusters there can be.
    let clusterCount: UInt64
    private let pageLimit: Int
    /// One after the largest cluster ever inserted.
    private(set) var end: UInt64 = 0
    /// Whether some clusters were not kept, because there were too many pages.
    private(set) var isCut = false
    private var pages: [[UInt64]] = []
    /// The index in ``pages`` by the page's number, or -1; empty for larger files.
    private var dense: [Int32]
    /// The same for larger files: only those pages that there are, by ascending number.
    private var sparse: [(number: UInt64, index: Int32)] = []

    /// An empty set of the clusters of a file.
    init(clusterCount: UInt64, pageLimit: Int = Self.pageLimit) {
        self.clusterCount = clusterCount
        self.pageLimit = pageLimit
        // Safe: a count of clusters has at most 55 bits.
        let pageCount = (clusterCount + Self.clustersPerPage - 1) / Self.clustersPerPage
        dense = [Int32](repeating: -1, count: pageCount <= Self.maximumDensePageCount ? Int(pageCount) : 0)
    }

    func contains(_ cluster: UInt64) -> Bool {
        guard cluster < clusterCount, let index = index(ofPage: cluster / Self.clustersPerPage) else { return false }
        let bit = Int(cluster % Self.clustersPerPage)
        return pages[index][bit / 64] >> UInt64(bit % 64) & 1 == 1
    }

    /// Adds a cluster of the file.
    ///
    /// - Returns: Whether it was not in the set; false for one past the end, or when there is no room.
    @discardableResult
    mutating func insert(_ cluster: UInt64) -> Bool {
        guard cluster < clusterCount, let page = addPage(cluster / Self.clustersPerPage) else { return false }
        let (word, bit) = (Int(cluster % Self.clustersPerPage) / 64, UInt64(1) << (cluster % 64))
        guard pages[page][word] & bit == 0 else { return false }
        pages[page][word] |= bit
        end = max(end, cluster + 1)
        return true
    }

    /// Adds those clusters of a run that the file has.
    mutating func insert(_ run: ClusterRun) {
        let (unclipped, overflow) = run.first.addingReportingOverflow(run.count)
        let stop = min(overflow ? .max : unclipped, clusterCount)
        var cluster = run.first
        while cluster < stop, !isCut {
            if cluster % Self.clustersPerPage == 0, stop - cluster >= Self.clustersPerPage {
                if let page = addPage(cluster / Self.clustersPerPage) { pages[page] = Self.fullPage }
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

    var isEmpty: Bool { pages.isEmpty }

    /// The next clusters from `start` on that are not in the set, or that are.
    func nextRun(from start: UInt64, inSet isMember: Bool) -> ClusterRun? {
        guard let first = firstCluster(from: start, inSet: isMember) else { return nil }
        let end = firstCluster(from: first, inSet: !isMember) ?? clusterCount
        return ClusterRun(first: first, count: end - first)
    }

    private func firstCluster(from start: UInt64, inSet isMember: Bool) -> UInt64? {
        var cluster = start
        while cluster < clusterCount {
            let number = cluster / Self.clustersPerPage
            guard let index = index(ofPage: number) else {
                if !isMember { return cluster }
                guard let next = nextPage(after: number) else { return nil }
                cluster = next * Self.clustersPerPage
                continue
            }
            let bit = Int(cluster % Self.clustersPerPage)
            let word = (isMember ? pages[index][bit / 64] : ~pages[index][bit / 64]) >> UInt64(bit % 64)
            if word != 0 {
                let found = cluster + UInt64(word.trailingZeroBitCount)
                return found < clusterCount ? found : nil
            }
            cluster += UInt64(64 - bit % 64)
        }
        return nil
    }
}

// Pages.
extension ClusterSet {
    private func index(ofPage number: UInt64) -> Int? {
        guard dense.isEmpty else {
            let index = dense[Int(number)]
            return index < 0 ? nil : Int(index)
        }
        let place = sparsePlace(of: number)
        return place < sparse.count && sparse[place].number == number ? Int(sparse[place].index) : nil
    }

    /// The page, which is new and empty if it wasn't there; `nil` when there is no room for it.
    private mutating func addPage(_ number: UInt64) -> Int? {
        if let index = index(ofPage: number) { return index }
        guard pages.count < pageLimit else {
            isCut = true
            return nil
        }
        // Safe: there are at most 2^17.
        let index = Int32(pages.count)
        pages.append([UInt64](repeating: 0, count: Self.wordsPerPage))
        if dense.isEmpty {
            sparse.insert((number, index), at: sparsePlace(of: number))
        } else {
            dense[Int(number)] = index
        }
        return Int(index)
    }

    /// Where a page is, or would be.
    private func sparsePlace(of number: UInt64) -> Int {
        // Pages mostly come in the order of the file.
        if let last = sparse.last, last.number < number { return sparse.count }
        var (low, high) = (0, sparse.count)
        while low < high {
            let middle = (low + high) / 2
            if sparse[middle].number < number { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private func nextPage(after number: UInt64) -> UInt64? {
        guard dense.isEmpty else {
            return dense[(Int(number) + 1)...].firstIndex { $0 >= 0 }.map { UInt64($0) }
        }
        let place = sparsePlace(of: number + 1)
        return place < sparse.count ? sparse[place].number : nil
    }
}
