// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The refcounts as guest writes leave them, of which the file holds those before.
///
/// Blocks are kept as they will be written. Those that didn't change are forgotten when there are many.
struct SessionRefcounts: Sendable {
    private let geometry: ImageGeometry
    /// Where each block is in the file.
    private(set) var blockOffsets: [HostOffset?]
    private var blocks: [Int: Block] = [:]
    private(set) var dirtyCount = 0

    private struct Block: Sendable {
        var bytes: [UInt8]
        var isDirty: Bool
    }

    init(_ table: RefcountTable) {
        geometry = table.geometry
        blockOffsets = table.blockOffsets
    }

    private func place(of cluster: UInt64) -> (block: Int, index: Int) {
        // Safe: a refcount table has at most 2^20 entries, and what is allocated was found to fit.
        (Int(cluster / geometry.refcountsPerBlock), Int(cluster % geometry.refcountsPerBlock))
    }

    /// Reads the block that describes a cluster, unless it is there already.
    private mutating func load<S: Storage & ~Copyable>(_ index: Int, from storage: borrowing S) throws(QCOW2Error) {
        guard blocks[index] == nil else { return }
        var bytes = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        if index < blockOffsets.count, let offset = blockOffsets[index] {
            bytes = try storage.readBytes(bytes.count, at: offset)
        }
        blocks[index] = Block(bytes: bytes, isDirty: false)
    }

    /// A cluster's refcount.
    mutating func refcount<S: Storage & ~Copyable>(
        of cluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        let place = place(of: cluster)
        try load(place.block, from: storage)
        guard let block = blocks[place.block] else { return 0 }
        return RefcountBlock.refcount(at: place.index, order: geometry.refcountOrder, in: block.bytes.span)
    }

    /// Changes a cluster's refcount to a number that fits.
    mutating func set<S: Storage & ~Copyable>(
        _ refcount: UInt64, of cluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) {
        let place = place(of: cluster)
        try load(place.block, from: storage)
        if blocks[place.block]?.isDirty == false { dirtyCount += 1 }
        blocks[place.block]?.isDirty = true
        let order = geometry.refcountOrder
        try blocks[place.block]?.bytes.withMutableSpan(of: 0..<geometry.clusterByteCount) { bytes in
            RefcountBlock.store(refcount, at: place.index, order: order, in: &bytes)
        }
    }

    /// The blocks that changed, in ascending order.
    var dirtyBlocks: [Int] { blocks.keys.filter { blocks[$0]?.isDirty == true }.sorted() }

    /// The length of a table that has room for every block.
    var tableEntryCount: Int { max(blockOffsets.count, (blocks.keys.max() ?? -1) + 1) }

    /// Says where a changed block will be, and returns its bytes, once all changes are made.
    mutating func move(_ index: Int, to offset: HostOffset) -> [UInt8] {
        blockOffsets.append(contentsOf: repeatElement(nil, count: max(0, index + 1 - blockOffsets.count)))
        blockOffsets[index] = offset
        if blocks[index]?.isDirty == true { dirtyCount -= 1 }
        blocks[index]?.isDirty = false
        return blocks[index]?.bytes ?? []
    }

    /// Forgets the blocks that didn't change, if there are more than `limit`.
    mutating func trim(to limit: Int) {
        guard blocks.count - dirtyCount > limit else { return }
        blocks = blocks.filter { $0.value.isDirty }
    }

    /// The refcount table's bytes.
    func encodeTable(byteCount: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var span = bytes.mutableSpan
        for (index, offset) in blockOffsets.enumerated() {
            let entry = RefcountTableEntry(block: offset)
            span.storeBigEndian(entry.rawValue, at: index * RefcountTableEntry.byteCount)
        }
        return bytes
    }
}
