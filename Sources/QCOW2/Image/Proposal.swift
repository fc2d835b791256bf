// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an operation wants the image to be, in terms of the trees that are there.
struct Proposal: Sendable {
    /// The tree of the old state whose mappings the active one will have.
    var activeTree = ImageState.activeTree
    /// Bytes of the virtual disk.
    var virtualSize: UInt64
    var snapshots: [Snapshot]
    /// Whether the bitmaps are given up, because they would no longer match the disk.
    var dropsBitmaps = false

    /// What a repair changes on top; `nil` for every other operation.
    var repair: Repair?

    /// A repair's changes, apart from refcounts and the copied flags of L2 tables.
    struct Repair: Sendable {
        /// Marks to clear.
        let clearedFeatures: IncompatibleFeatures
        /// Whether the snapshot table is written anew even if its entries are the same.
        let rewritesSnapshotTable: Bool
        /// Whether L1 entries get the copied flags that they should have.
        let setsFlags: Bool
        /// Whether the active L1 table moves even if its entries are the same.
        let movesActiveL1: Bool
    }

    /// A snapshot of the new state.
    struct Snapshot: Sendable {
        /// Its entry; the planner fills in where its L1 table is.
        var entry: SnapshotTableEntry
        /// The tree of the old state whose mappings it has.
        let tree: Int
        /// Whether the snapshot has no L1 table of its own yet.
        let isNew: Bool
    }

    /// The state as it is.
    init(keeping state: ImageState) {
        virtualSize = state.header.size
        snapshots = state.entries.enumerated().map { index, entry in
            Snapshot(entry: entry, tree: index + 1, isNew: false)
        }
    }

    /// For each tree of the old state, how many trees of the new one have its mappings.
    func treeUses(of treeCount: Int) -> [UInt32] {
        var uses = [UInt32](repeating: 0, count: treeCount)
        uses[activeTree] += 1
        for snapshot in snapshots { uses[snapshot.tree] += 1 }
        return uses
    }
}
