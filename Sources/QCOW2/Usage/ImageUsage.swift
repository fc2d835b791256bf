// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an image's file is used for, and which state holds how much of it.
///
/// All sizes are whole clusters, whether the file system stores them or not: see ``FileUsage/allocatedByteCount``.
public struct ImageUsage: Hashable, Sendable {
    /// What the guest runs on.
    public var active: StateUsage
    /// The snapshots, in the order of ``Image/snapshots``.
    public var snapshots: [StateUsage]
    /// The file as a whole.
    public var file: FileUsage
}

/// How much one state of the disk holds.
///
/// A state occupies ``exclusiveByteCount`` + ``sharedByteCount`` bytes of the file: host clusters with its data and VM
/// state, its L2 tables, and its L1 table.
public struct StateUsage: Hashable, Sendable {
    /// Bytes of the disk.
    public var virtualSize: UInt64
    /// Bytes of guest clusters that have a place in the file: data, compressed data, zeros that keep a host cluster;
    /// and VM state.
    public var mappedByteCount: UInt64 = 0
    /// Bytes of host clusters that no other state reaches.
    ///
    /// What deleting a snapshot alone frees, except for the snapshot table's clusters.
    public var exclusiveByteCount: UInt64 = 0
    /// Bytes of host clusters that another state reaches, too.
    ///
    /// A host cluster counts once for each of the state's L2 tables that refer to it: more than once only where
    /// compressed clusters of two tables lie in it.
    public var sharedByteCount: UInt64 = 0
    /// Bytes of guest clusters that are compressed; part of ``mappedByteCount``.
    public var compressedByteCount: UInt64 = 0
    /// Bytes of the sectors in which the compressed data lies; a sector that two compressed clusters share counts twice.
    public var compressedStoredByteCount: UInt64 = 0

    /// Bytes that compression saves this state; negative where it made data larger.
    ///
    /// Not a number of clusters: the gaps that compressed clusters leave in their host clusters aren't in it.
    public var compressionSavings: Int64 {
        Int64(clamping: compressedByteCount) - Int64(clamping: compressedStoredByteCount)
    }
}

/// What the clusters of an image's file are.
///
/// ``dataByteCount``, ``metadata``, ``leakedByteCount`` and ``freeByteCount`` make up the file's length, rounded up to
/// a whole cluster.
public struct FileUsage: Hashable, Sendable {
    /// The file's length.
    public var byteCount: UInt64
    /// Bytes that the file system has given to the file; `nil` where the storage can't tell.
    public var allocatedByteCount: UInt64?
    /// Clusters with data or VM state of any state of the disk.
    public var dataByteCount: UInt64 = 0
    /// Clusters with the image's own tables.
    public var metadata: MetadataUsage
    /// Clusters that are counted as used, but that nothing refers to.
    public var leakedByteCount: UInt64 = 0
    /// Clusters that are free, and used for the guest's next writes.
    public var freeByteCount: UInt64 = 0
}

/// Bytes of the clusters that hold an image's own tables, by kind.
public struct MetadataUsage: Hashable, Sendable {
    /// The header with its extensions: one cluster.
    public var header: UInt64 = 0
    public var activeL1Table: UInt64 = 0
    public var snapshotL1Tables: UInt64 = 0
    /// Each distinct L2 table once.
    public var l2Tables: UInt64 = 0
    public var refcountTable: UInt64 = 0
    public var refcountBlocks: UInt64 = 0
    public var snapshotTable: UInt64 = 0
    /// Bitmaps that are consistent with the disk: directory, tables and bits.
    public var bitmaps: UInt64 = 0
    /// The key material of LUKS.
    public var encryption: UInt64 = 0

    /// All of them.
    public var total: UInt64 {
        [
            header, activeL1Table, snapshotL1Tables, l2Tables, refcountTable, refcountBlocks, snapshotTable, bitmaps,
            encryption,
        ].reduce(0) { $0 &+ $1 }
    }
}

extension MetadataUsage {
    /// Counts the tables that don't lie below an L1 table.
    init(_ state: ImageState) {
        for table in state.tables {
            let byteCount = table.run.count &* state.geometry.clusterSize
            switch table.kind {
            case .header: header &+= byteCount
            case .encryption: encryption &+= byteCount
            case .activeL1: activeL1Table &+= byteCount
            case .snapshotL1: snapshotL1Tables &+= byteCount
            case .snapshotTable: snapshotTable &+= byteCount
            case .refcountTable: refcountTable &+= byteCount
            case .refcountBlock: refcountBlocks &+= byteCount
            case .bitmapDirectory, .bitmapTable, .bitmapData: bitmaps &+= byteCount
            }
        }
        refcountBlocks &+= UInt64(state.singles.refcountBlocks.count) &* state.geometry.clusterSize
        bitmaps &+= UInt64(state.singles.bitmapData.count) &* state.geometry.clusterSize
    }
}
