// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How far an inspection goes.
public struct InspectionOptions: Sendable {
    /// How many bytes of clusters that nothing refers to are searched for remnants of snapshots; 0 for none.
    ///
    /// 1 GiB by default. What was left out is said by the finding `search-cut`.
    public var searchByteLimit: UInt64 = 1 << 30
    /// How many bytes of L1 and L2 tables are read to learn which clusters are referred to.
    ///
    /// 8 GiB by default, the tables of 64 TiB in clusters of 64 KiB. Where they are not enough nothing is searched.
    public var tableByteLimit: UInt64 = 8 << 30
    /// How many findings of one code are kept; all are counted.
    public var findingLimit = 64

    /// The defaults.
    public init() {}
}
