// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Looks up refcounts in a table that may say anything.
///
/// Where there is no block, or none that the file has, refcounts are zero.
struct LenientRefcounts: Sendable {
    private let geometry: ImageGeometry
    private let fileByteCount: UInt64
    /// Where blocks are, by their index in the table.
    let blocks: [UInt64: HostOffset]
    private var current: (index: UInt64, bytes: [UInt8])?

    init(_ table: [UInt8], _ geometry: ImageGeometry, fileByteCount: UInt64) {
        self.geometry = geometry
        self.fileByteCount = fileByteCount
        var blocks: [UInt64: HostOffset] = [:]
        // Blocks that describe nothing but what is past the end of the file are looked up by nobody.
        for position in stride(from: 0, through: table.count - 8, by: RefcountTableEntry.byteCount) {
            let entry = RefcountTableEntry(rawValue: table.span.loadBigEndian(at: position))
            guard let block = entry.block, geometry.isAligned(block), block.rawValue < fileByteCount else { continue }
            blocks[UInt64(position / RefcountTableEntry.byteCount)] = block
        }
        self.blocks = blocks
    }

    /// A cluster's refcount; clusters in rising order read each block once.
    mutating func refcount<S: Storage & ~Copyable>(
        of cluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        let (index, place) = cluster.quotientAndRemainder(dividingBy: geometry.refcountsPerBlock)
        guard let block = blocks[index] else { return 0 }
        if current?.index != index {
            current = nil
            current = (index, try storage.readBytes(geometry.clusterByteCount, at: block))
        }
        guard let bytes = current?.bytes else { return 0 }
        // Eight refcounts, which start at a byte whatever their width.
        let (group, member) = place.quotientAndRemainder(dividingBy: 8)
        let start = Int(group) << geometry.refcountOrder
        var values = [UInt64](repeating: 0, count: 8)
        RefcountBlock.decode(
            bytes.span.extracting(start..<(start + 1 << geometry.refcountOrder)), order: geometry.refcountOrder,
            count: 8, into: &values)
        return values[Int(member)]
    }
}
