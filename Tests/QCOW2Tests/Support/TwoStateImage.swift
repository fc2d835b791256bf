// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Makes an image whose active state and snapshot `first` share some L2 tables and some data, and differ in others.
///
/// Written number by number, for layouts of which no golden image exists.
struct TwoStateImage {
    var version = 3
    var clusterBits = 9
    var refcountOrder = 4
    /// Clusters of the disk, in the active state and in the snapshot.
    var activeSize = 40
    var snapshotSize = 40
    /// Into how many clusters of each L2 table's range something is written.
    var dataPerTable = 6
    /// The clusters of the finished file, when it has to be filled up to an exact number.
    var clusterCount: Int?

    var bytes: [UInt8] {
        var builder = ImageBuilder(
            clusterBits: clusterBits, refcountOrder: refcountOrder, size: UInt64(activeSize << clusterBits))
        let tableCounts = [activeSize, snapshotSize].map { ($0 + perTable - 1) / perTable }
        let l1Tables = tableCounts.map { builder.take(($0 * 8 + builder.clusterSize - 1) / builder.clusterSize) }
        builder.set(UInt64(tableCounts[0]), 4, at: 36)
        builder.set(UInt64(l1Tables[0]), at: 40)
        let snapshot = RawSnapshot(
            l1TableOffset: l1Tables[1], l1EntryCount: tableCounts[1], name: Array("first".utf8),
            extra: RawSnapshot.extra(0, UInt64(snapshotSize << clusterBits), .max))
        builder.setSnapshots([snapshot])

        addOwnTables(to: &builder, l1Tables)
        // The other tables: shared where both disks reach that far.
        for table in 1..<max(1, tableCounts.max() ?? 0) {
            if clusterCount != nil, dataCount(in: builder) == 0 { break }
            let owners = (0...1).filter { table < tableCounts[$0] }
            let l2Table = builder.take(refcount: UInt64(owners.count))
            for owner in owners { builder.set(copied(owners.count, l2Table), at: l1Tables[owner] + table * 8) }
            let room = min(perTable, owners.map { [activeSize, snapshotSize][$0] - table * perTable }.min() ?? 0)
            for entry in 0..<min(room, dataCount(in: builder)) {
                let data = takeData(from: &builder, refcount: owners.count)
                builder.set(copied(owners.count, data), at: l2Table + entry * 8)
            }
        }
        var image = builder.finished()
        if version == 2 {
            // What version 3 keeps behind the 72 bytes of version 2 would be header extensions.
            image.set(2, 4, at: 4)
            image.set(0, at: 96)
        }
        return image.bytes
    }

    private var perTable: Int { 1 << (clusterBits - 3) }

    /// The first table of each tree is its own, and shares a part of the data.
    private func addOwnTables(to builder: inout ImageBuilder, _ l1Tables: [Int]) {
        let l2Tables = [builder.take(), builder.take()]
        for owner in 0...1 { builder.set(copied(1, l2Tables[owner]), at: l1Tables[owner]) }
        for entry in 0..<dataPerTable {
            if entry % 3 == 0 {
                let data = takeData(from: &builder, refcount: 2)
                for l2Table in l2Tables { builder.set(UInt64(data), at: l2Table + entry * 8) }
            } else {
                for l2Table in l2Tables {
                    let data = takeData(from: &builder, refcount: 1)
                    builder.set(copied(1, data), at: l2Table + entry * 8)
                }
            }
        }
        if version == 3 { builder.set(1, at: l2Tables[0] + dataPerTable * 8) }
    }

    /// A cluster with a number of its own in each sector.
    private func takeData(from builder: inout ImageBuilder, refcount: Int) -> Int {
        let data = builder.take(refcount: UInt64(refcount))
        for sector in stride(from: data, to: data + builder.clusterSize, by: 512) {
            builder.set(UInt64(sector + 1), at: sector)
        }
        return data
    }

    private func copied(_ refcount: Int, _ offset: Int) -> UInt64 { (refcount == 1 ? 1 << 63 : 0) | UInt64(offset) }

    private func dataCount(in builder: ImageBuilder) -> Int {
        guard let clusterCount else { return dataPerTable }
        let perBlock = (builder.clusterSize * 8) >> refcountOrder
        let blockCount = (clusterCount + perBlock - 1) / perBlock
        return max(0, clusterCount - blockCount - builder.clusterCount)
    }
}
