// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A number per host cluster, zero unless something was added; memory follows the clusters that were touched.
struct ClusterCounts: Sendable {
    /// Base-2 logarithm of the clusters in a page.
    static let pageBits: UInt64 = 12
    static let pageCount = 1 << Int(pageBits)

    /// An empty array stands for a page of zeros.
    private(set) var pages: [[UInt32]] = []
    /// Whether an addition exceeded 32 bits, which no image that anybody wrote can do.
    private(set) var hasOverflowed = false

    subscript(cluster: UInt64) -> UInt32 {
        let page = Int(cluster >> Self.pageBits)
        guard page < pages.count, !pages[page].isEmpty else { return 0 }
        return pages[page][Int(cluster) & (Self.pageCount - 1)]
    }

    /// Adds `weight` to every cluster of a run.
    mutating func add(_ run: ClusterRun, weight: UInt32) {
        var overflowed = false
        forEachPart(of: run) { page, range in
            for index in range {
                let (sum, overflow) = page[index].addingReportingOverflow(weight)
                page[index] = sum
                overflowed = overflowed || overflow
            }
        }
        if overflowed { hasOverflowed = true }
    }

    /// Sets every cluster of a run.
    mutating func set(_ run: ClusterRun, to value: UInt32) {
        forEachPart(of: run) { page, range in
            for index in range { page[index] = value }
        }
    }

    /// Splits a run at page borders, and makes the pages exist.
    private mutating func forEachPart(of run: ClusterRun, _ body: (_ page: inout [UInt32], _ range: Range<Int>) -> Void)
    {
        var cluster = run.first
        while cluster < run.end {
            let page = Int(cluster >> Self.pageBits)
            if page >= pages.count { pages.append(contentsOf: repeatElement([], count: page + 1 - pages.count)) }
            if pages[page].isEmpty { pages[page] = [UInt32](repeating: 0, count: Self.pageCount) }
            let start = Int(cluster) & (Self.pageCount - 1)
            let end = min(Self.pageCount, start + Int(run.end - cluster))
            body(&pages[page], start..<end)
            cluster += UInt64(end - start)
        }
    }
}
