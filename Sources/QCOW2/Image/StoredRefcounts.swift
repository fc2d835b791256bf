// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The refcounts of an image as they are in its file.
///
/// Section "3.1 Structure".
struct StoredRefcounts: Sendable {
    let geometry: ImageGeometry
    /// Where each block is; short of trailing entries without one.
    let blockOffsets: [HostOffset?]
    private let blocks: [RefcountBlock?]

    init<S: Storage & ~Copyable>(
        reading header: Header, _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) {
        geometry = header.geometry
        let base = header.refcountTableOffset
        let tableByteCount = UInt64(header.refcountTableClusterCount) * geometry.clusterSize
        // Past the end of the file there are only zeros, which is what an entry without a block is.
        let presentByteCount = Int(min(tableByteCount, bounds.byteCount - min(bounds.byteCount, base.rawValue)))
        let table = try storage.readBytes(presentByteCount / 8 * 8, at: base)
        var offsets: [HostOffset?] = []
        var blocks: [RefcountBlock?] = []
        var seen: Set<HostOffset> = []
        for position in stride(from: 0, to: table.count, by: RefcountTableEntry.byteCount) {
            let entry = RefcountTableEntry(rawValue: table.span.loadBigEndian(at: position))
            let place = base.saturating(adding: UInt64(position))
            guard !entry.hasReservedBits else { throw .reservedBits("refcount table entry", entry.rawValue, at: place) }
            guard let offset = entry.block else { continue }
            guard geometry.isAligned(offset) else { throw .misaligned("refcount table entry", offset, at: place) }
            guard offset.rawValue < bounds.byteCount else {
                throw .beyondEnd("refcount table entry", offset, at: place)
            }
            guard seen.insert(offset).inserted else {
                throw .invalid("refcount table entry", "the block at \(offset) is listed twice", at: place)
            }
            let index = position / RefcountTableEntry.byteCount
            offsets.append(contentsOf: repeatElement(nil, count: index - offsets.count))
            blocks.append(contentsOf: repeatElement(nil, count: index - blocks.count))
            offsets.append(offset)
            let bytes = try storage.readBytes(geometry.clusterByteCount, at: offset)
            blocks.append(RefcountBlock(bytes: bytes, order: geometry.refcountOrder))
        }
        blockOffsets = offsets
        self.blocks = blocks
    }

    /// A cluster's refcount; zero for one that no block describes.
    subscript(cluster: UInt64) -> UInt64 {
        guard let block = block(blockIndex(of: cluster)) else { return 0 }
        return block[Int(cluster % geometry.refcountsPerBlock)]
    }

    /// The index after the last cluster that a block describes.
    var describedClusterCount: UInt64 { UInt64(blocks.count) * geometry.refcountsPerBlock }

    func blockIndex(of cluster: UInt64) -> Int { Int(cluster / geometry.refcountsPerBlock) }

    /// The block at an index of the refcount table; `nil` when all its refcounts are zero for want of one.
    func block(_ index: Int) -> RefcountBlock? { index < blocks.count ? blocks[index] : nil }

    func blockOffset(_ index: Int) -> HostOffset? { index < blockOffsets.count ? blockOffsets[index] : nil }
}
