// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Where an image's refcount blocks are.
///
/// Section "3.1 Structure". The refcounts themselves stay in the file: there may be any number of them.
struct RefcountTable: Sendable {
    let geometry: ImageGeometry
    /// Where each block is; short of trailing entries without one.
    let blockOffsets: [HostOffset?]

    /// By the block's index, whether it lies in a hole of the file, so that all its refcounts are zero; empty if none
    /// is known to.
    private var isHole: [Bool] = []

    /// A table without blocks.
    init(empty geometry: ImageGeometry) {
        self.geometry = geometry
        blockOffsets = []
    }

    /// What may be wrong with an entry of the refcount table.
    enum Defect { case invalid, listedTwice }

    /// Reads the table, and refuses it for an entry that can't be.
    init<S: Storage & ~Copyable>(
        reading header: Header, _ storage: borrowing S, _ bounds: FileBounds
    ) throws(QCOW2Error) {
        try self.init(reading: header, storage, bounds) { (_, _, error) throws(QCOW2Error) in throw error }
    }

    /// Reads the table; an entry for which `note` doesn't throw counts as none, unless only reserved bits are set.
    init<S: Storage & ~Copyable>(
        reading header: Header, _ storage: borrowing S, _ bounds: FileBounds,
        _ note: (_ defect: Defect, _ index: Int, _ error: QCOW2Error) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        geometry = header.geometry
        let base = header.refcountTableOffset
        let tableByteCount = UInt64(header.refcountTableClusterCount) * geometry.clusterSize
        // Past the end of the file there are only zeros, which is what an entry without a block is.
        let presentByteCount = Int(min(tableByteCount, bounds.byteCount - min(bounds.byteCount, base.rawValue)))
        let table = try storage.readBytes(presentByteCount / 8 * 8, at: base)
        var offsets: [HostOffset?] = []
        var seen: Set<HostOffset> = []
        for position in stride(from: 0, to: table.count, by: RefcountTableEntry.byteCount) {
            let entry = RefcountTableEntry(rawValue: table.span.loadBigEndian(at: position))
            let place = base.saturating(adding: UInt64(position))
            let index = position / RefcountTableEntry.byteCount
            if entry.hasReservedBits {
                try note(.invalid, index, .reservedBits("refcount table entry", entry.rawValue, at: place))
            }
            guard let offset = entry.block else { continue }
            guard geometry.isAligned(offset) else {
                try note(.invalid, index, .misaligned("refcount table entry", offset, at: place))
                continue
            }
            guard offset.rawValue < bounds.byteCount else {
                try note(.invalid, index, .beyondEnd("refcount table entry", offset, at: place))
                continue
            }
            guard seen.insert(offset).inserted else {
                let why = "the block at \(offset) is listed twice"
                try note(.listedTwice, index, .invalid("refcount table entry", why, at: place))
                continue
            }
            offsets.append(contentsOf: repeatElement(nil, count: index - offsets.count))
            offsets.append(offset)
        }
        blockOffsets = offsets
        try findHoles(storage, blockCount: seen.count)
    }

    /// Finds out which blocks lie in holes of the file, if there are more blocks than bytes on the disk.
    ///
    /// Otherwise the work of reading them is in proportion to those bytes anyway.
    private mutating func findHoles<S: Storage & ~Copyable>(
        _ storage: borrowing S, blockCount: Int
    ) throws(QCOW2Error) {
        guard let allocated = try storage.allocatedByteCount(), allocated >> UInt64(geometry.clusterBits) < blockCount
        else { return }
        isHole = [Bool](repeating: false, count: blockOffsets.count)
        for (index, offset) in blockOffsets.enumerated() {
            guard let start = offset?.rawValue else { continue }
            isHole[index] = try storage.dataRange(in: start..<(start + geometry.clusterSize)) == nil
        }
    }

    /// The index after the last cluster that a block describes.
    var describedClusterCount: UInt64 { UInt64(blockOffsets.count) * geometry.refcountsPerBlock }

    /// Whether some refcount that the block describes may be more than zero.
    func hasData(_ index: Int) -> Bool { blockOffset(index) != nil && !(index < isHole.count && isHole[index]) }

    func blockIndex(of cluster: UInt64) -> Int { Int(cluster / geometry.refcountsPerBlock) }

    /// The block at an index of the refcount table; `nil` when all its refcounts are zero for want of one.
    func blockOffset(_ index: Int) -> HostOffset? { index < blockOffsets.count ? blockOffsets[index] : nil }
}

/// Reads refcounts of neighbouring clusters, a piece at a time.
struct RefcountReader: Sendable {
    /// The most refcounts in a piece: a block of the usual kind, and a size at which all that is done with a piece
    /// stays in the processor's cache.
    static let pieceCount = 32768

    /// How many blocks are asked for ahead.
    private static let aheadCount = 32

    private let table: RefcountTable
    private let pieceCount: UInt64
    private let readsAhead: Bool
    /// The index after the last block that was asked for.
    private var askedCount = 0
    /// The refcounts of the clusters in ``range``, and room for more.
    private(set) var values: [UInt64]
    private(set) var range: Range<UInt64> = 0..<0
    private var bytes: [UInt8] = []

    /// A reader of pieces.
    ///
    /// - Parameters:
    ///   - table: Where the refcounts are.
    ///   - pieceCount: The most refcounts of a piece, a power of two and at least 8.
    ///   - readsAhead: Whether one piece after the other is read, in the order of the file.
    init(_ table: RefcountTable, pieceCount: Int = Self.pieceCount, readsAhead: Bool = false) {
        self.table = table
        self.pieceCount = UInt64(pieceCount)
        self.readsAhead = readsAhead
        values = [UInt64](repeating: 0, count: pieceCount)
    }

    func blockIndex(of cluster: UInt64) -> Int { table.blockIndex(of: cluster) }

    /// The piece of clusters that starts with `first`: as many as one read should fetch, not past `end`.
    func piece(from first: UInt64, upTo end: UInt64) -> Range<UInt64> {
        let perBlock = table.geometry.refcountsPerBlock
        let blockEnd = (first / perBlock + 1) * perBlock
        return first..<min(end, blockEnd, first - first % pieceCount + pieceCount)
    }

    /// Reads the refcounts of a piece into ``values``.
    ///
    /// - Returns: Whether there is a block that describes the piece; if not, the refcounts are zero.
    @discardableResult
    mutating func read<S: Storage & ~Copyable>(
        _ piece: Range<UInt64>, from storage: borrowing S
    ) throws(QCOW2Error) -> Bool {
        range = piece
        let geometry = table.geometry
        if readsAhead { askAhead(of: table.blockIndex(of: piece.lowerBound), storage) }
        let count = Int(piece.upperBound - piece.lowerBound)
        let blockIndex = table.blockIndex(of: piece.lowerBound)
        guard let block = table.blockOffset(blockIndex), table.hasData(blockIndex) else {
            for index in 0..<count { values[index] = 0 }
            return table.blockOffset(blockIndex) != nil
        }
        // Pieces start at multiples of 8, so that narrow refcounts start at a byte.
        let start = (piece.lowerBound % geometry.refcountsPerBlock) << UInt64(geometry.refcountOrder) / 8
        let byteCount = (count << geometry.refcountOrder + 7) / 8
        if bytes.count < byteCount { bytes = [UInt8](repeating: 0, count: byteCount) }
        try bytes.withMutableSpan(of: 0..<byteCount) { (bytes) throws(QCOW2Error) in
            try storage.read(into: &bytes, at: block.saturating(adding: start))
        }
        let bytes = bytes
        RefcountBlock.decode(bytes.span, order: geometry.refcountOrder, count: count, into: &values)
        return true
    }

    private mutating func askAhead<S: Storage & ~Copyable>(of index: Int, _ storage: borrowing S) {
        let end = min(index + Self.aheadCount, table.blockOffsets.count)
        askedCount = max(askedCount, index)
        while askedCount < end {
            if let offset = table.blockOffset(askedCount), table.hasData(askedCount) {
                storage.willRead(table.geometry.clusterByteCount, at: offset)
            }
            askedCount += 1
        }
    }

    /// The refcount of one cluster; reads its piece unless it was the last one read.
    mutating func refcount<S: Storage & ~Copyable>(
        of cluster: UInt64, from storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        if !range.contains(cluster) {
            let first = cluster - cluster % pieceCount
            let perBlock = table.geometry.refcountsPerBlock
            let start = max(first, cluster - cluster % perBlock)
            try read(piece(from: start, upTo: .max), from: storage)
        }
        return values[Int(cluster - range.lowerBound)]
    }
}
