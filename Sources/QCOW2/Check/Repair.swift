// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How much a repair changes.
public enum RepairScope: String, Hashable, Sendable, CaseIterable {
    /// Clusters that nothing refers to are freed; copied flags follow, if nothing else is wrong.
    case leaks
    /// Also refcounts that are too low or missing, copied flags, incomplete snapshot entries, and marks.
    case all
}

/// What a repair did, or would do.
public struct RepairReport: Sendable {
    /// The check before.
    public internal(set) var before: CheckReport
    /// The check after it; `nil` if nothing was written.
    public internal(set) var after: CheckReport?
    /// Refcounts that were raised.
    public internal(set) var raisedRefcountCount: UInt64 = 0
    /// Refcounts that were lowered; clusters were freed where that led to zero.
    public internal(set) var loweredRefcountCount: UInt64 = 0
    /// L2 tables that got other copied flags.
    public internal(set) var changedL2TableCount = 0
    /// Whether the active L1 table got other copied flags.
    public internal(set) var changesL1Table = false
    /// Entries of the snapshot table that can't be read, and were left out because that was asked for.
    public internal(set) var droppedSnapshotCount = 0
    /// Entries of the snapshot table that can't be read, or lead to no L1 table that can be, and were kept.
    public internal(set) var keptUnreadableSnapshotCount = 0
    /// Whether the snapshot table was written anew.
    public internal(set) var rewritesSnapshotTable = false
    /// The dirty and corrupt bits that were cleared.
    public internal(set) var clearedMarks: IncompatibleFeatures = []

    /// What is in leaked clusters and leads to data that no state has, because of which nothing was done; the first
    /// ones, if there are very many.
    public internal(set) var remnants: [Remnant] = []

    /// Whether there was anything to do.
    public var hasChanges: Bool {
        raisedRefcountCount > 0 || loweredRefcountCount > 0 || changedL2TableCount > 0 || changesL1Table
            || droppedSnapshotCount > 0 || rewritesSnapshotTable || !clearedMarks.isEmpty || rebuildsRefcountTable
            || clearsBitmapsPromise || separatesActiveL1
    }

    /// Whether the refcount table held entries that can't be.
    public internal(set) var rebuildsRefcountTable = false
    /// Whether the active L1 table, which a snapshot used as well, moved away from that.
    public internal(set) var separatesActiveL1 = false
    /// Whether the promise of bitmaps that aren't there was taken back.
    public internal(set) var clearsBitmapsPromise = false
}

extension FindingRule {
    /// Whether a repair of everything leaves nothing of such a finding; as long as all references are known.
    var isRepairable: Bool {
        switch self {
        case .bitmapsMissing, .markedDirty, .markedCorrupt, .refcountTableInvalid, .refcountTableEntryInvalid,
            .refcountBlockTwice, .activeL1Shared, .refcountTooLow, .refcountTooHigh, .copiedFlagL1, .copiedFlagL2,
            .copiedFlagCompressed, .copiedFlagUnallocated, .snapshotWritable, .snapshotEntryIncomplete:
            true
        default: severity <= .notice
        }
    }

    /// Whether there may be references that nobody can follow any more, so that a cluster without one may be needed.
    var hidesReferences: Bool {
        switch self {
        case .extensionInvalid, .encryptionInvalid, .bitmapsInvalid, .tableOutOfBounds, .tablesOverlap,
            .snapshotTableInvalid, .snapshotEntryInvalid, .snapshotL1TooSmall, .snapshotVMState, .l1EntryInvalid,
            .l1EntryReservedBits, .l2TableTwiceInTree,
            .l2EntryReservedBits, .l2EntryZeroBit, .l2EntryMisaligned, .l2EntryPastEnd, .compressedEntryInvalid,
            .dataInMetadata, .clusterMappedTwice, .refcountOverflow:
            true
        default: false
        }
    }

    /// Whether it is only about copied flags of the active tree.
    var isAboutFlags: Bool {
        switch self {
        case .copiedFlagL1, .copiedFlagL2, .copiedFlagCompressed, .copiedFlagUnallocated: true
        default: false
        }
    }
}
