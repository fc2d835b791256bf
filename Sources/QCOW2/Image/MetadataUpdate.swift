// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A change of metadata as data: what goes into clusters that are free in the old state, the one sector that switches
/// to it, and what is free afterwards.
///
/// The planner makes it and the committer carries it out; the order of its parts is the committer's alone.
struct MetadataUpdate: Sendable {
    /// Something to write into a cluster that the old state doesn't use.
    enum Preparation: Hashable, Sendable {
        case table([UInt8], at: HostOffset)
        /// A copy of an L2 table with other copied flags. Read and written by the committer, table by table, so that
        /// memory doesn't grow with their number.
        case l2Copy(of: HostOffset, to: HostOffset, flags: CopiedFlags)
    }

    /// The file's length in the old state.
    let oldFileByteCount: UInt64
    var preparations: [Preparation] = []
    /// The image as the new header will describe it.
    var header: Header
    var entries: [SnapshotTableEntry]
    var snapshotTableByteCount: UInt64
    /// Clusters that only the old state uses, in ascending order.
    var freed: [ClusterRun] = []
    /// The file's length when everything behind the last used cluster is cut off.
    var newFileByteCount: UInt64
}
