// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Lays out a new image of one disk from its start to its end: header, L1 table, data with the L2 tables in between,
/// refcounts.
///
/// Sections "1" to "3". Version 3, refcounts of 16 bits, no snapshots, no backing file.
struct StandaloneImage {
    static let clusterBits = 16
    /// The most bytes that are collected before they are written.
    private static let capacity = 1 << 20

    private let file: NewFile
    private var header: Header
    private let geometry: ImageGeometry
    private var l1: [L1Entry]
    private var l2 = [UInt64]()
    private var l2Index = 0
    /// A count for each cluster of the file so far.
    private var refcounts: [UInt16] = []
    /// Where the next compressed cluster goes, if it fits.
    private var packedEnd: UInt64 = 0
    private var collected: [UInt8] = []
    private var collectedStart: UInt64 = 0

    /// - Throws: ``QCOW2Error/Code/limitExceeded`` for a disk that clusters of 64 KiB can't hold.
    init(_ file: NewFile, virtualSize: UInt64, compression: CompressionType?) throws(QCOW2Error) {
        self.file = file
        // Readers round sizes down to sectors.
        let size = (virtualSize + 511) & ~511
        header = Header(
            version: 3, backingFileOffset: HostOffset(0), backingFileNameByteCount: 0,
            clusterBits: UInt32(Self.clusterBits), size: size, encryption: .none, l1EntryCount: 0,
            l1TableOffset: HostOffset(0), refcountTableOffset: HostOffset(0), refcountTableClusterCount: 0,
            snapshotCount: 0, snapshotTableOffset: HostOffset(0), incompatibleFeatures: [], compatibleFeatures: [],
            autoclearFeatures: [], refcountOrder: 4, headerByteCount: 112, rawCompressionType: 0)
        if compression == .zstd {
            header.incompatibleFeatures = .compressionType
            header.rawCompressionType = CompressionType.zstd.rawValue
        }
        geometry = header.geometry
        let count = max(1, geometry.l1EntryCount(forDiskSize: size))  // Else nothing refers to the table.
        guard count <= ImageGeometry.maximumL1EntryCount else {
            throw QCOW2Error(
                .limitExceeded, "A disk of \(size) bytes is too large for an image with clusters of 64 KiB.")
        }
        l1 = [L1Entry](repeating: .unallocated, count: Int(count))
        l2 = [UInt64](repeating: 0, count: geometry.l2EntryCount)
        _ = allocate(1)
        header.l1EntryCount = UInt32(count)
        header.l1TableOffset = HostOffset(allocate(max(1, geometry.clusterCount(forBytes: count * 8))))
    }

    /// Takes clusters at the file's end.
    private mutating func allocate(_ count: UInt64, refcount: UInt16 = 1) -> UInt64 {
        let offset = UInt64(refcounts.count) << UInt64(geometry.clusterBits)
        refcounts.append(contentsOf: repeatElement(refcount, count: Int(count)))
        return offset
    }

    /// Adds neighbouring guest clusters as they are; guest offsets must grow from call to call.
    mutating func add(_ bytes: Span<UInt8>, at guest: UInt64) throws(QCOW2Error) {
        var done = 0
        while done < bytes.count {
            try select(guest + UInt64(done))
            let index = geometry.indices(of: GuestOffset(guest + UInt64(done))).l2
            let count = min(bytes.count - done, (geometry.l2EntryCount - index) * geometry.clusterByteCount)
            let clusterCount = geometry.clusterCount(forBytes: UInt64(count))
            let host = allocate(clusterCount)
            for cluster in 0..<Int(clusterCount) {
                l2[index + cluster] = L2Entry.Bits.copied | (host + UInt64(cluster) << UInt64(geometry.clusterBits))
            }
            try write(bytes.extracting(done..<(done + count)), at: host)
            done += count
        }
    }

    /// Adds one compressed guest cluster, next to the one before.
    mutating func add(compressed bytes: Span<UInt8>, at guest: UInt64) throws(QCOW2Error) {
        try select(guest)
        let mask = geometry.clusterSize - 1
        let fileEnd = UInt64(refcounts.count) << UInt64(geometry.clusterBits)
        let isLast = (packedEnd + mask) & ~mask == fileEnd
        if packedEnd & mask == 0 || packedEnd & mask + UInt64(bytes.count) > geometry.clusterSize && !isLast {
            packedEnd = allocate(1, refcount: 0)
        }
        let start = packedEnd
        packedEnd += UInt64(bytes.count)
        if packedEnd > UInt64(refcounts.count) << UInt64(geometry.clusterBits) { _ = allocate(1, refcount: 0) }
        let (first, last) = (geometry.cluster(at: HostOffset(start)), geometry.cluster(at: HostOffset(packedEnd - 1)))
        // Safe: a compressed cluster has more than one byte, so a cluster holds fewer than 65536 of them.
        for cluster in first...last { refcounts[Int(cluster)] += 1 }
        let entry = CompressedCluster.descriptor(offset: start, byteCount: bytes.count, in: geometry)
        l2[geometry.indices(of: GuestOffset(guest)).l2] = L2Entry.Bits.compressed | entry
        try write(bytes, at: start)
    }

    /// Makes the L2 table of a guest offset the current one.
    private mutating func select(_ guest: UInt64) throws(QCOW2Error) {
        // Safe: below the number of L1 entries.
        let index = Int(geometry.indices(of: GuestOffset(guest)).l1)
        guard index != l2Index else { return }
        try finishL2()
        l2Index = index
    }

    private mutating func finishL2() throws(QCOW2Error) {
        guard l2.contains(where: { $0 != 0 }) else { return }
        let offset = allocate(1)
        l1[l2Index] = L1Entry(l2Table: HostOffset(offset), isCopied: true)
        var bytes = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = bytes.mutableSpan
        for index in l2.indices { span.storeBigEndian(l2[index], at: index &* 8) }
        try write(bytes.span, at: offset)
        for index in l2.indices { l2[index] = 0 }
    }

    /// Writes the tables and, last, the header.
    ///
    /// - Returns: The file's length.
    mutating func finish() throws(QCOW2Error) -> UInt64 {
        try finishL2()
        try write(L1Entry.encodeTable(l1).span, at: header.l1TableOffset.rawValue)
        // Blocks count the clusters of the blocks and of the table, too.
        var (blockCount, tableCount): (UInt64, UInt64) = (0, 0)
        while true {
            let total = UInt64(refcounts.count) + blockCount + tableCount
            let blocks = (total + geometry.refcountsPerBlock - 1) / geometry.refcountsPerBlock
            let clusters = geometry.clusterCount(forBytes: blocks * 8)
            if (blocks, clusters) == (blockCount, tableCount) { break }
            (blockCount, tableCount) = (blocks, clusters)
        }
        let blockOffset = allocate(blockCount)
        header.refcountTableOffset = HostOffset(allocate(tableCount))
        header.refcountTableClusterCount = UInt32(tableCount)
        var counts = [UInt8](repeating: 0, count: Int(blockCount) * geometry.clusterByteCount)
        var countSpan = counts.mutableSpan
        for cluster in refcounts.indices { countSpan.storeBigEndian(refcounts[cluster], at: cluster &* 2) }
        try write(counts.span, at: blockOffset)
        var table = [UInt8](repeating: 0, count: Int(tableCount) * geometry.clusterByteCount)
        var tableSpan = table.mutableSpan
        for block in 0..<Int(blockCount) {
            tableSpan.storeBigEndian(blockOffset + UInt64(block) << UInt64(geometry.clusterBits), at: block * 8)
        }
        try write(table.span, at: header.refcountTableOffset.rawValue)
        var first = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var firstSpan = first.mutableSpan
        header.encode(into: &firstSpan)
        try write(first.span, at: 0)
        try flush()
        let byteCount = UInt64(refcounts.count) << UInt64(geometry.clusterBits)
        try file.setByteCount(byteCount)
        return byteCount
    }

    /// Writes bytes, or collects them with their neighbours.
    private mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        if collectedStart + UInt64(collected.count) != offset || collected.count + bytes.count > Self.capacity {
            try flush()
            if bytes.count >= Self.capacity / 2 { return try file.write(bytes, at: offset) }
            collectedStart = offset
        }
        // SAFETY: the pointer is only used to copy from.
        unsafe bytes.withUnsafeBufferPointer { unsafe collected.append(contentsOf: $0) }
    }

    private mutating func flush() throws(QCOW2Error) {
        if !collected.isEmpty { try file.write(collected.span, at: collectedStart) }
        collected.removeAll(keepingCapacity: true)
    }
}

extension CompressedCluster {
    /// Bits 0 to 61 of the entry for compressed bytes at an offset.
    static func descriptor(offset: UInt64, byteCount: Int, in geometry: ImageGeometry) -> UInt64 {
        let sectorSize = ImageGeometry.sectorSize
        let additional = (offset + UInt64(byteCount) - 1) / sectorSize - offset / sectorSize
        return offset | additional << UInt64(62 - (geometry.clusterBits - 8))
    }
}
