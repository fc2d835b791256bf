// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What reading an L2 table has shown: all that a sweep remembers of it.
struct L2TableContent: Sendable {
    /// The clusters that the table refers to all lie in here.
    let targets: Range<UInt64>
    let flags: L2TableScan.Flags
    /// Where the table's runs begin among those that the sweep keeps.
    fileprivate let firstRun: UInt32
    /// How many runs it has; `nil` if they were too many to keep.
    fileprivate let runCount: UInt8?

    /// Of a table that hasn't been read: it may refer to anything.
    fileprivate static let unknown = L2TableContent(
        targets: 0..<UInt64.max, flags: L2TableScan.Flags(), firstRun: 0, runCount: nil)
    /// Of a table that refers to nothing.
    fileprivate static let empty = L2TableContent(
        targets: 0..<0, flags: L2TableScan.Flags(), firstRun: 0, runCount: 0)
}

/// What is remembered of all L2 tables, by their index.
struct L2TableContents: Sendable {
    private var contents: [L2TableContent]
    /// The runs of those tables that have few, one table after the other.
    private var runs: [ClusterRun] = []

    /// The most runs that are kept for all tables together: 4 MiB.
    private static let maximumRunCount = 1 << 18

    init(count: Int) { contents = [L2TableContent](repeating: .unknown, count: count) }

    subscript(index: Int) -> L2TableContent { contents[index] }

    /// What a table refers to, if that is kept.
    func keptRuns(of index: Int) -> ArraySlice<ClusterRun>? {
        let content = contents[index]
        guard let count = content.runCount else { return nil }
        return runs[Int(content.firstRun)..<(Int(content.firstRun) + Int(count))]
    }

    /// Whether a table must be read to know what it has in a range.
    func needsReading(_ index: Int, for range: Range<UInt64>) -> Bool {
        contents[index].runCount == nil && contents[index].targets.overlaps(range)
    }

    /// Notes that a table refers to nothing.
    mutating func noteEmpty(_ index: Int) { contents[index] = .empty }

    /// Keeps what a table was found to refer to; its runs, if they are few and there is room.
    mutating func note(_ findings: L2TableFindings, of index: Int) {
        var runCount: UInt8?
        let firstRun = UInt32(runs.count)  // Safe: far fewer than 2^32 are kept.
        if let found = findings.keptRuns, runs.count + found.count <= Self.maximumRunCount {
            runCount = UInt8(found.count)  // Safe: a handful at most.
            runs += found
        }
        contents[index] = L2TableContent(
            targets: findings.targets, flags: findings.flags, firstRun: firstRun, runCount: runCount)
    }
}

/// What an L2 table refers to, while it is being read.
struct L2TableFindings {
    var flags = L2TableScan.Flags()
    private var low = UInt64.max
    private var high: UInt64 = 0
    private var runs: [ClusterRun] = []
    private var hasManyRuns = false

    /// The most runs of a table that are worth keeping.
    private static let maximumRunCount = 4

    /// The clusters that it refers to all lie in here.
    var targets: Range<UInt64> { low < high ? low..<high : 0..<0 }
    /// All runs, if they are few.
    var keptRuns: [ClusterRun]? { hasManyRuns ? nil : runs }

    /// Gives up the runs, which say too little about the table.
    mutating func forgetRuns() { hasManyRuns = true }

    @inline(__always)
    mutating func note(_ run: ClusterRun) {
        low = min(low, run.first)
        high = max(high, run.end)
        guard !hasManyRuns else { return }
        hasManyRuns = runs.count == Self.maximumRunCount
        if !hasManyRuns { runs.append(run) }
    }
}
