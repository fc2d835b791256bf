// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an operation wants the image to be, in terms of the trees that are there.
struct Proposal: Sendable {
    /// The tree of the old state whose mappings the active one will have.
    var activeTree = ImageState.activeTree
    /// Bytes of the virtual disk.
    var virtualSize: UInt64
    var snapshots: [PlannedSnapshot]
    /// Whether the bitmaps are given up, because they would no longer match the disk.
    var dropsBitmaps = false
    /// How the active tree's mappings change at the end of the disk, when its size does; only with the active tree.
    var resizing = Resizing()

    /// What a change of size does to the active tree beside the size.
    struct Resizing: Sendable {
        /// The L1 entries below which nothing stays.
        var droppedL1Entries = 0..<0
        /// The L1 entries below which everything reads as zeros; they have no table yet, or one that is dropped.
        var zeroedL1Entries = 0..<0
        /// The table at the border between what stays and what goes, if it isn't as it should be.
        var borderTable: BorderTable?
    }

    /// An L2 table that replaces the active tree's one.
    struct BorderTable: Sendable {
        let l1Index: Int
        /// Where the old one is, if there is one.
        let old: HostOffset?
        /// The entries that stay, with the flags of the old ones, or the others' new form.
        var bytes: [UInt8]
        /// The last cluster of the disk, if its bytes have to change; its entry is left empty.
        var lastCluster: LastCluster?
    }

    /// New bytes for the cluster at an index of the table at the border.
    struct LastCluster: Sendable {
        let bytes: [UInt8]
        let index: Int
        /// Its subclusters, with extended L2 entries.
        let bitmap: SubclusterBitmap
    }

    /// What a repair changes on top; `nil` for every other operation.
    var repair: Repair?

    /// A repair's changes, apart from refcounts and the copied flags of L2 tables.
    struct Repair: Sendable {
        /// Marks to clear.
        let clearedFeatures: IncompatibleFeatures
        /// Whether the snapshot table is written anew even if its entries are the same.
        let rewritesSnapshotTable: Bool
        /// Whether the snapshot table stays as it is, because more may be in it than could be read.
        let keepsSnapshotTable: Bool
        /// Whether L1 entries get the copied flags that they should have.
        let setsFlags: Bool
        /// Whether the active L1 table moves even if its entries are the same.
        let movesActiveL1: Bool
    }

    /// A snapshot of the new state.
    struct PlannedSnapshot: Sendable {
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
            PlannedSnapshot(entry: entry, tree: index + 1, isNew: false)
        }
    }

    /// The entries of the old active L1 table below which everything goes, or is replaced; in ascending order.
    var droppedL1Entries: [Range<Int>] {
        var ranges = [resizing.droppedL1Entries]
        if let border = resizing.borderTable?.l1Index { ranges.append(border..<(border + 1)) }
        return ranges.filter { !$0.isEmpty }.sorted { $0.lowerBound < $1.lowerBound }
    }

    /// Whether everything below an L1 entry of the old active tree goes, or is replaced.
    func drops(l1Index: Int) -> Bool {
        resizing.droppedL1Entries.contains(l1Index) || resizing.borderTable?.l1Index == l1Index
    }

    /// For each tree of the old state, how many trees of the new one have its mappings.
    func treeUses(of treeCount: Int) -> [UInt32] {
        var uses = [UInt32](repeating: 0, count: treeCount)
        uses[activeTree] += 1
        for snapshot in snapshots { uses[snapshot.tree] += 1 }
        return uses
    }
}
