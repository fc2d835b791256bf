// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How far an inspection goes.
public struct InspectionOptions: Sendable {
    /// How many bytes of clusters that nothing refers to are searched for remnants of snapshots; 0 for none.
    ///
    /// As many are read again, at most, to look at what the remnants point to. 1 GiB by default; holes of the file don't
    /// count. What was left out is said by the finding `search-cut`.
    public var searchByteLimit: UInt64 = 1 << 30
    /// How many bytes of L1 and L2 tables are read to learn which clusters are referred to.
    ///
    /// 8 GiB by default, the tables of 64 TiB in clusters of 64 KiB. Where they are not enough nothing is searched.
    public var tableByteLimit: UInt64 = 8 << 30
    /// Called between pieces of work, from the thread that does it.
    ///
    /// When it returns false the inspection stops with ``QCOW2Error/Code/cancelled``.
    public var progress: (@Sendable (Progress) -> Bool)?
    /// How many findings of one code are kept; all are counted.
    public var findingLimit = 64

    /// The defaults.
    public init() {}
}
