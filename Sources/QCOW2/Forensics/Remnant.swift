// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Something in a cluster that nothing refers to, which leads to data that no state of the image has.
public struct Remnant: Hashable, Sendable {
    /// What it is.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        /// An entry of a snapshot table.
        case snapshotEntry = "snapshot-entry"
        /// An L1 table, or a part of one.
        case l1Table = "l1-table"
        /// An L2 table that no L1 table found here leads to.
        case l2Table = "l2-table"
    }

    public let kind: Kind
    /// Where it is.
    public let offset: HostOffset
    /// The snapshot that the entry describes; `nil` for tables.
    public let snapshot: Snapshot?
    /// How many clusters of data, which aren't zeros and which no state has, were seen below it.
    ///
    /// The true number may be larger, and is never smaller. Zero for an entry right behind the snapshot table whose data is all shared.
    public let dataClusterCount: UInt64
}
