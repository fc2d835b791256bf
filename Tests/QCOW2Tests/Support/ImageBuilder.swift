// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Builds a consistent image cluster by cluster: whoever takes clusters says how often they are referred to.
struct ImageBuilder {
    let clusterBits: Int
    let refcountOrder: Int
    private(set) var file = ImageBytes()
    private var refcounts: [UInt64] = []
    private let refcountTable: Int

    var clusterSize: Int { 1 << clusterBits }
    var clusterCount: Int { refcounts.count }

    /// An image with a header and a refcount table.
    init(clusterBits: Int = 9, refcountOrder: Int = 4, size: UInt64 = 0, refcountTableClusterCount: Int = 1) {
        self.clusterBits = clusterBits
        self.refcountOrder = refcountOrder
        refcountTable = 1 << clusterBits
        file.set(0x5146_49FB, 4, at: 0)
        file.set(3, 4, at: 4)
        file.set(UInt64(clusterBits), 4, at: 20)
        file.set(size, at: 24)
        file.set(UInt64(refcountTable), at: 48)
        file.set(UInt64(refcountTableClusterCount), 4, at: 56)
        file.set(UInt64(refcountOrder), 4, at: 96)
        file.set(112, 4, at: 100)
        take(1 + refcountTableClusterCount)
    }

    /// Takes clusters at the end of the file, and returns their offset.
    @discardableResult
    mutating func take(_ count: Int = 1, refcount: UInt64 = 1) -> Int {
        let offset = refcounts.count << clusterBits
        refcounts.append(contentsOf: repeatElement(refcount, count: count))
        file.grow(to: refcounts.count << clusterBits)
        return offset
    }

    mutating func set(_ value: UInt64, _ byteCount: Int = 8, at offset: Int) { file.set(value, byteCount, at: offset) }

    /// Gives the disk an L1 table, and data in its first clusters, numbered from 1.
    mutating func fill(_ dataClusterCount: Int) {
        let l2EntryCount = clusterSize / 8
        let span = clusterSize * l2EntryCount
        let l1EntryCount = (Int(file.number(at: 24)) + span - 1) / span
        let l1Table = take((l1EntryCount * 8 + clusterSize - 1) / clusterSize)
        set(UInt64(l1EntryCount), 4, at: 36)
        set(UInt64(l1Table), at: 40)
        var l2Table = 0
        for index in 0..<dataClusterCount {
            if index % l2EntryCount == 0 {
                l2Table = take()
                set(1 << 63 | UInt64(l2Table), at: l1Table + index / l2EntryCount * 8)
            }
            let data = take()
            set(UInt64(index + 1), at: data)
            set(1 << 63 | UInt64(data), at: l2Table + index % l2EntryCount * 8)
        }
    }

    /// Writes a snapshot table.
    mutating func setSnapshots(_ entries: [RawSnapshot]) {
        let table = RawSnapshot.table(entries)
        let offset = take((table.count + clusterSize - 1) / clusterSize)
        file.set(table, at: offset)
        set(UInt64(entries.count), 4, at: 60)
        set(UInt64(offset), at: 64)
    }

    /// The image, with refcount blocks behind everything else.
    func finished() -> ImageBytes {
        var builder = self
        let perBlock = (clusterSize * 8) >> refcountOrder
        var blocks: [Int] = []
        while blocks.count * perBlock < builder.refcounts.count { blocks.append(builder.take()) }
        let bits = 1 << refcountOrder
        for (index, block) in blocks.enumerated() {
            builder.set(UInt64(block), at: refcountTable + index * 8)
        }
        for (cluster, refcount) in builder.refcounts.enumerated() {
            let bit = cluster % perBlock * bits
            let place = blocks[cluster / perBlock] + bit / 8
            if bits >= 8 {
                builder.set(refcount, bits / 8, at: place)
            } else {
                builder.set(builder.file.number(1, at: place) | refcount << UInt64(bit % 8), 1, at: place)
            }
        }
        return builder.file
    }
}
