// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an L2 entry refers to, as far as that can be followed.
struct L2EntryTarget {
    /// The clusters that count a reference.
    var run: ClusterRun?
    /// Whether the copied flag of the entry speaks of the run's refcount.
    var carriesFlag = false
    /// Whether the guest cluster has a place in the file.
    var isAllocated = false
    var compressed: CompressedCluster?

    var isCompressed: Bool { compressed != nil }
}

/// Looks at L2 entries that aren't plain, and says what is wrong with them.
///
/// Invariants I-7, I-12 to I-14, I-17 and I-23.
struct L2EntryInspection: Sendable {
    let geometry: ImageGeometry
    let bounds: FileBounds
    let hasDataFile: Bool

    /// An entry, and where it is.
    struct Place {
        let tableOffset: HostOffset
        /// Byte of the entry in the table.
        let position: Int
        /// Index in some L1 table of an entry that points to the table.
        let l1Index: UInt32
        let isActive: Bool

        var offset: HostOffset { tableOffset.saturating(adding: UInt64(position)) }
    }

    func guestCluster(_ place: Place) -> UInt64 {
        UInt64(place.l1Index) * UInt64(geometry.l2EntryCount) + UInt64(place.position / geometry.l2EntryByteCount)
    }

    /// What the entry refers to; what is wrong with it goes to `sink`, if there is one.
    func target(of entry: L2Entry, in table: Span<UInt8>, _ place: Place, _ sink: FindingSink?) -> L2EntryTarget {
        func add(_ rule: FindingRule, _ why: @autoclosure () -> String) {
            sink?.add(
                rule, at: place.offset, in: "L2 table",
                index: UInt64(place.position / geometry.l2EntryByteCount),
                "The L2 entry 0x\(String(entry.rawValue, radix: 16)) for guest offset "
                    + "\(geometry.offset(ofCluster: guestCluster(place))) is invalid: \(why()).")
        }
        if geometry.hasExtendedL2 {
            let bitmap = SubclusterBitmap(rawValue: table.loadBigEndian(at: place.position + 8))
            if let defect = bitmap.defect(beside: entry) { add(.subclustersInvalid, defect) }
        }
        return entry.isCompressed ? compressedTarget(entry, add) : ownTarget(entry, place, add)
    }

    private func compressedTarget(
        _ entry: L2Entry, _ add: (FindingRule, @autoclosure () -> String) -> Void
    ) -> L2EntryTarget {
        if entry.isCopied { add(.copiedFlagCompressed, "a compressed cluster carries the copied flag") }
        let compressed = CompressedCluster(descriptor: entry.rawValue & L2Entry.Bits.descriptor, in: geometry)
        var target = L2EntryTarget(isAllocated: true, compressed: compressed)
        if hasDataFile {
            add(.dataFileContradicted, "an image with an external data file has no compressed clusters")
            return target
        }
        guard compressed.offset.rawValue < ImageGeometry.hostOffsetLimit else {
            add(.compressedEntryInvalid, "the offset of a compressed cluster exceeds 56 bits")
            return target
        }
        // The last sector may be cut off by the end of the file.
        if compressed.offset.rawValue >= bounds.byteCount
            || compressed.end >= bounds.byteCount + ImageGeometry.sectorSize
        {
            add(.l2EntryPastEnd, "its compressed bytes at \(compressed.offset) reach past the end of the file")
        }
        if compressed.offset.rawValue < geometry.clusterSize {
            add(.dataInMetadata, "its compressed bytes would lie in the header's cluster")
        }
        target.run = compressed.run(in: geometry)
        return target
    }

    private func ownTarget(
        _ entry: L2Entry, _ place: Place, _ add: (FindingRule, @autoclosure () -> String) -> Void
    ) -> L2EntryTarget {
        if entry.rawValue & L2Entry.Bits.reserved != 0 { add(.l2EntryReservedBits, "reserved bits are set") }
        if entry.rawValue & L2Entry.Bits.zero != 0, !geometry.hasZeroFlag {
            add(.l2EntryZeroBit, "bit 0 is set, which this image doesn't allow")
        }
        if hasDataFile { return dataFileTarget(entry, place, add) }
        guard let offset = entry.ownCluster else {
            if entry.isCopied, place.isActive {
                add(.copiedFlagUnallocated, "it carries the copied flag without a cluster")
            }
            return L2EntryTarget()
        }
        var target = L2EntryTarget(isAllocated: true)
        let first = geometry.cluster(at: offset)
        if geometry.isAligned(offset) {
            target.run = ClusterRun(first: first, count: 1)
            target.carriesFlag = true
        } else {
            add(.l2EntryMisaligned, "the offset \(offset) is not that of a cluster")
            // It touches two clusters, also where the file ends with the first: it may grow.
            target.run = ClusterRun(first: first, count: 2)
        }
        if offset.rawValue >= bounds.byteCount {
            add(.l2EntryPastEnd, "the cluster at \(offset) lies past the end of the file")
        }
        return target
    }

    private func dataFileTarget(
        _ entry: L2Entry, _ place: Place, _ add: (FindingRule, @autoclosure () -> String) -> Void
    ) -> L2EntryTarget {
        let offset = entry.rawValue & L2Entry.Bits.hostOffset
        guard offset != 0 || entry.isCopied else { return L2EntryTarget() }
        if offset != geometry.offset(ofCluster: guestCluster(place)).rawValue {
            add(.dataFileContradicted, "its offset in the external data file differs from the guest's")
        }
        if !entry.isCopied { add(.dataFileContradicted, "clusters in an external data file carry the copied flag") }
        return L2EntryTarget(isAllocated: true)
    }
}
