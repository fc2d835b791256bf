// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The sizes that follow from an image's header, and the only index and offset arithmetic of the library.
///
/// Its values are in range by construction, so none of its arithmetic on numbers of the file's own size can overflow.
/// Implements the sections "2.1 Index arithmetic" and "3.1 Structure" of the format reference.
struct ImageGeometry: Hashable, Sendable {
    /// The allowed base-2 logarithms of the cluster size: 512 bytes to 2 MiB.
    static let clusterBitsRange: ClosedRange<UInt32> = 9...21
    /// The most entries of an L1 table: 32 MiB of them.
    static let maximumL1EntryCount: UInt64 = 4_194_304
    /// The largest refcount table in bytes.
    static let maximumRefcountTableByteCount: UInt64 = 8 << 20
    /// Bytes of a sector, the unit of atomic writes.
    static let sectorSize: UInt64 = 512
    /// Host offsets are stored in bits 9 to 55.
    static let hostOffsetLimit: UInt64 = 1 << 56

    let clusterBits: Int
    let refcountOrder: Int
    let hasExtendedL2: Bool
    /// Whether bit 0 of an L2 entry may mean "reads as zeros": version 3 without extended L2 entries.
    let hasZeroFlag: Bool

    /// Bytes of a cluster.
    var clusterSize: UInt64 { 1 << UInt64(clusterBits) }
    /// Bytes of a cluster, for sizes in memory.
    var clusterByteCount: Int { 1 << clusterBits }
    /// Bytes of an L2 entry: 8, or 16 when extended.
    var l2EntryByteCount: Int { hasExtendedL2 ? 16 : 8 }
    /// Entries of an L2 table.
    var l2EntryCount: Int { clusterByteCount / l2EntryByteCount }
    /// Base-2 logarithm of the guest bytes below one L1 entry.
    private var l1EntrySpanBits: Int { clusterBits + clusterBits - (hasExtendedL2 ? 4 : 3) }
    /// Bits of a refcount: 1 to 64.
    var refcountBits: Int { 1 << refcountOrder }
    /// Refcounts in a refcount block.
    var refcountsPerBlock: UInt64 { (clusterSize * 8) >> UInt64(refcountOrder) }
    /// The largest refcount that the width can hold.
    var maximumRefcount: UInt64 { refcountOrder == 6 ? .max : (1 << UInt64(refcountBits)) - 1 }
    /// Entries in a cluster of a table with 8-byte entries (L1 and refcount table).
    var tableEntriesPerCluster: UInt64 { clusterSize / 8 }

    func isAligned(_ offset: HostOffset) -> Bool { offset.rawValue & (clusterSize - 1) == 0 }

    func cluster(at offset: HostOffset) -> UInt64 { offset.rawValue >> UInt64(clusterBits) }

    func offset(ofCluster index: UInt64) -> HostOffset { HostOffset(index << UInt64(clusterBits)) }

    /// How many clusters `byteCount` bytes from a cluster's start touch.
    func clusterCount(forBytes byteCount: UInt64) -> UInt64 {
        (byteCount >> UInt64(clusterBits)) + (byteCount & (clusterSize - 1) == 0 ? 0 : 1)
    }

    /// How many L1 entries a disk of `byteCount` bytes needs.
    func l1EntryCount(forDiskSize byteCount: UInt64) -> UInt64 {
        let mask = (UInt64(1) << UInt64(l1EntrySpanBits)) - 1
        return (byteCount >> UInt64(l1EntrySpanBits)) + (byteCount & mask == 0 ? 0 : 1)
    }

    /// The first guest offset below an L1 entry.
    func guestOffset(ofL1Index index: UInt64) -> UInt64 { index << UInt64(l1EntrySpanBits) }

    /// Where a guest offset is looked up: the index in the L1 table and in the L2 table, and the byte in the cluster.
    func indices(of guest: GuestOffset) -> (l1: UInt64, l2: Int, byte: Int) {
        let cluster = guest.rawValue >> UInt64(clusterBits)
        return (
            guest.rawValue >> UInt64(l1EntrySpanBits),
            Int(cluster & UInt64(l2EntryCount - 1)),
            Int(guest.rawValue & (clusterSize - 1))
        )
    }

    /// The clusters of a table of `byteCount` bytes at an aligned `offset`; `nil` for an empty table.
    func run(at offset: HostOffset, byteCount: UInt64) -> ClusterRun? {
        guard byteCount > 0 else { return nil }
        return ClusterRun(first: cluster(at: offset), count: clusterCount(forBytes: byteCount))
    }
}
