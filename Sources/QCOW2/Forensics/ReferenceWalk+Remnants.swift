// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Tells L1 tables from other clusters, and whether one is still whole.
extension ReferenceWalk {
    /// How many targets are looked at to believe that a table is an L1 table.
    private static let targetLimit = 4

    /// How many entries are in use, if the cluster looks like the first one of an L1 table; else `nil`.
    ///
    /// L2 tables look the same. But what an L1 table points to is an L2 table, and what that points to hardly ever.
    func usedEntryCount<S: Storage & ~Copyable>(
        ofL1TableIn bytes: Span<UInt8>, from storage: borrowing S
    ) throws(QCOW2Error) -> Int? {
        guard let targets = targets(ofL1EntriesIn: bytes), !targets.isEmpty else { return nil }
        for target in targets.prefix(Self.targetLimit) {
            if l2Tables.contains(geometry.cluster(at: target)) { return targets.count }
            let table = try storage.readBytes(geometry.clusterByteCount, at: target)
            guard table.span.hasNonZeroByte(in: 0..<table.count) else { continue }
            return isL2Table(table.span) ? targets.count : nil
        }
        return nil
    }

    /// What is where a deleted snapshot's L1 table was.
    func state<S: Storage & ~Copyable>(
        ofL1TableAt offset: HostOffset, entryCount: UInt32, from storage: borrowing S
    ) throws(QCOW2Error) -> Inspection.L1State {
        guard entryCount > 0 else { return .empty }
        guard offset.rawValue < fileByteCount, geometry.isAligned(offset) else { return .lost }
        guard !referenced.contains(geometry.cluster(at: offset)) else { return .reused }
        let byteCount = min(UInt64(entryCount) * 8, geometry.clusterSize, fileByteCount - offset.rawValue) / 8 * 8
        let bytes = try storage.readBytes(Int(byteCount), at: offset)
        guard let targets = targets(ofL1EntriesIn: bytes.span) else { return .lost }
        return targets.isEmpty ? .empty : .readable
    }

    /// Where the entries point to; `nil` when one can't be an L1 entry of this file.
    private func targets(ofL1EntriesIn bytes: Span<UInt8>) -> [HostOffset]? {
        var targets: [HostOffset] = []
        var position = 0
        while position + L1Entry.byteCount <= bytes.count {
            let entry = L1Entry(rawValue: bytes.loadBigEndian(at: position))
            position += L1Entry.byteCount
            guard entry.rawValue != 0 else { continue }
            guard !entry.hasReservedBits, let target = entry.l2Table, geometry.isAligned(target),
                target.rawValue < fileByteCount
            else { return nil }
            targets.append(target)
        }
        return targets
    }

    private func isL2Table(_ bytes: Span<UInt8>) -> Bool {
        for position in stride(from: 0, to: bytes.count, by: geometry.l2EntryByteCount) {
            let entry = L2Entry(rawValue: bytes.loadBigEndian(at: position))
            guard entry.defect(in: geometry) == nil else { return false }
            if entry.isCompressed {
                let compressed = CompressedCluster(
                    descriptor: entry.rawValue & L2Entry.Bits.descriptor, in: geometry)
                guard compressed.offset.rawValue < fileByteCount else { return false }
            } else if let offset = entry.ownCluster {
                guard geometry.isAligned(offset), offset.rawValue < fileByteCount else { return false }
            }
            if geometry.hasExtendedL2 {
                let bitmap = SubclusterBitmap(rawValue: bytes.loadBigEndian(at: position + 8))
                guard bitmap.defect(beside: entry) == nil else { return false }
            }
        }
        return true
    }
}
