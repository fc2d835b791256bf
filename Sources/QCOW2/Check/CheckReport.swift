// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How a check goes about it.
public struct CheckOptions: Sendable {
    /// The most findings of one code that are handed out, neighbouring clusters as one; all are counted.
    public var findingLimitPerCode = 1000
    /// Whether every compressed cluster is decompressed, to see that it can be.
    ///
    /// Takes as long as reading all of them.
    public var decodesCompressedClusters = false
    /// About how many bytes of memory to count references in, at least 1 MiB.
    ///
    /// An image whose clusters don't fit is counted in several passes; the default is enough for one pass of 1 TiB of
    /// clusters of 64 KiB.
    public var memoryBudget = 72 << 20
    /// Called between batches of work, from the thread that does it.
    ///
    /// When it returns false the check stops with ``QCOW2Error/Code/cancelled``.
    public var progress: (@Sendable (Progress) -> Bool)?

    /// The defaults: 1000 findings of a code, nothing decompressed.
    public init() {}
}

/// What a check found, in numbers.
public struct CheckReport: Hashable, Sendable {
    /// How many findings of one code there were.
    public struct Tally: Hashable, Sendable {
        public let code: Finding.Code
        public let severity: Finding.Severity
        /// All of them.
        public let count: UInt64
        /// How many were handed out, one by one or with their neighbours.
        public let reportedCount: UInt64

        init(_ rule: FindingRule, _ tally: FindingSink.Tally) {
            code = rule.code
            severity = rule.severity
            count = tally.count
            reportedCount = tally.reported
        }
    }

    /// Every code that was found, the worst first.
    public internal(set) var tallies: [Tally] = []
    /// Whether all was read that can refer to a cluster.
    ///
    /// If not, clusters without a known reference count as such (`references-unknown`) and not as leaks.
    public internal(set) var isComplete = true
    /// Clusters of the virtual disk.
    public internal(set) var totalClusterCount: UInt64 = 0
    /// Guest clusters of the active state that have a host cluster, VM state included.
    public internal(set) var allocatedClusterCount: UInt64 = 0
    /// Of the allocated ones, those that don't follow their neighbour in the file; all compressed ones.
    public internal(set) var fragmentedClusterCount: UInt64 = 0
    /// Of the allocated ones, those that are compressed.
    public internal(set) var compressedClusterCount: UInt64 = 0
    /// Where the last cluster in use ends.
    public internal(set) var imageEndOffset = HostOffset(0)
    /// Snapshots whose mappings were checked.
    public internal(set) var checkedSnapshotCount = 0
    /// Compressed clusters that were decompressed.
    public internal(set) var decodedClusterCount: UInt64 = 0

    /// How many findings of a severity there were.
    public func count(of severity: Finding.Severity) -> UInt64 {
        tallies.reduce(0) { $1.severity == severity ? $0 + $1.count : $0 }
    }

    /// How many findings of a code there were.
    public func count(of code: Finding.Code) -> UInt64 { tallies.first { $0.code == code }?.count ?? 0 }

    /// The worst severity found; `nil` when nothing was.
    public var worstSeverity: Finding.Severity? { tallies.map(\.severity).max() }

    /// Whether the image is consistent: notices are no defects.
    public var isClean: Bool { (worstSeverity ?? .notice) <= .notice }
}
