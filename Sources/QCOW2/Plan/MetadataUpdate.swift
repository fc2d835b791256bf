// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A change of metadata as data: what goes into clusters that are free in the old state, and the one sector that
/// switches to it.
///
/// The planner makes it and the committer carries it out; the order of its parts is the committer's alone. What is
/// large (L2 tables, refcount blocks) is described here, and made from the old state when it is written.
struct MetadataUpdate: Sendable {
    /// The file's length in the old state.
    let oldFileByteCount: UInt64
    /// Small tables, whole.
    var tables: [(bytes: [UInt8], offset: HostOffset)] = []
    /// L2 tables that are copied to another place, with other flags; in the order of the file.
    var movedTables: [MovedTable] = []
    /// What becomes of the refcount blocks; `nil` when they are among the tables.
    var refcounts: RefcountPlan?
    /// The image as the new header will describe it.
    var header: Header
    var entries: [SnapshotTableEntry]
    var snapshotTableByteCount: UInt64

    /// An L2 table that goes to another place with other copied flags.
    struct MovedTable: Sendable {
        let source: HostOffset
        let target: HostOffset
        let flags: CopiedFlags
    }
}

/// The refcount blocks that change, and how.
struct RefcountPlan: Sendable {
    let table: RefcountTable
    /// Where the new blocks go, in ascending order of their index in the refcount table.
    var targets: [(index: Int, offset: HostOffset)] = []
    /// How counts change with the trees.
    var changes: any ReferenceChanges
    /// Whether `changes` says what all refcounts of a new block are, and not only those that the survey found.
    var setsAllRefcounts = false
    /// What was found in the old blocks.
    var blocks: BlockSurvey
    /// How counts change with what moves, comes and goes.
    var adjustments = RefcountAdjustments()
    /// Clusters, in the order of the file, that become free but aren't worth giving back to the file system.
    var reserve: [UInt64] = []
}
