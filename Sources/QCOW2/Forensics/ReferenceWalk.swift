// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Learns which clusters an image refers to, from tables that may say anything.
///
/// Reads every byte of an L1 table once, however many snapshots share it, and every L2 table once.
struct ReferenceWalk: Sendable {
    let geometry: ImageGeometry
    let fileByteCount: UInt64
    /// Every cluster that something refers to.
    var referenced: ClusterSet
    /// Those of them that hold an L2 table.
    private(set) var l2Tables: ClusterSet
    private(set) var readByteCount: UInt64 = 0
    /// Entries that the format forbids, and the first one's place.
    private(set) var invalid = Tally()
    /// Entries that point past the end of the file, and the first one's place.
    private(set) var pastEnd = Tally()
    /// The largest offset that an entry points to.
    private(set) var largestOffset: UInt64 = 0
    /// Whether a limit ended the walk before all tables were read.
    private(set) var isCut = false
    private let byteLimit: UInt64
    private let hasExternalData: Bool

    struct Tally: Sendable {
        private(set) var count: UInt64 = 0
        private(set) var first: HostOffset?

        mutating func add(_ place: HostOffset) {
            count += 1
            if first == nil { first = place }
        }
    }

    /// A walk over nothing yet.
    init(_ geometry: ImageGeometry, fileByteCount: UInt64, byteLimit: UInt64, hasExternalData: Bool) {
        let clusterCount = geometry.clusterCount(forBytes: fileByteCount)
        referenced = ClusterSet(clusterCount: clusterCount)
        l2Tables = referenced
        self.geometry = geometry
        self.fileByteCount = fileByteCount
        self.byteLimit = byteLimit
        self.hasExternalData = hasExternalData
    }

    /// Adds what the L1 tables in these parts of the file refer to.
    mutating func addL1Tables<S: Storage & ~Copyable>(
        _ tables: [(offset: HostOffset, byteCount: UInt64)], from storage: borrowing S
    ) throws(QCOW2Error) {
        var done: UInt64 = 0
        // Tables that overlap are read once, as the union of their bytes.
        for table in tables.sorted(by: { $0.offset < $1.offset }) {
            guard table.offset.rawValue < fileByteCount else { continue }
            let end = table.offset.rawValue + min(table.byteCount, fileByteCount - table.offset.rawValue)
            var position = max(table.offset.rawValue, done)
            while position + 8 <= end, !isCut {
                let byteCount = min(end - position, 1 << 18) / 8 * 8
                let bytes = try readCounted(byteCount, at: HostOffset(position), from: storage)
                addL1Entries(bytes, at: HostOffset(position))
                position += byteCount
            }
            done = max(done, end)
        }
        try addL2Tables(from: storage)
    }

    private mutating func readCounted<S: Storage & ~Copyable>(
        _ byteCount: UInt64, at offset: HostOffset, from storage: borrowing S
    ) throws(QCOW2Error) -> [UInt8] {
        readByteCount += byteCount
        if readByteCount > byteLimit { isCut = true }
        return try storage.readBytes(Int(byteCount), at: offset)
    }

    private mutating func addL1Entries(_ bytes: [UInt8], at base: HostOffset) {
        for position in stride(from: 0, to: bytes.count, by: L1Entry.byteCount) {
            let entry = L1Entry(rawValue: bytes.span.loadBigEndian(at: position))
            guard entry.rawValue != 0 else { continue }
            let place = base.saturating(adding: UInt64(position))
            if entry.hasReservedBits { invalid.add(place) }
            guard let l2Table = entry.l2Table, geometry.isAligned(l2Table) else {
                if !entry.hasReservedBits { invalid.add(place) }
                continue
            }
            largestOffset = max(largestOffset, l2Table.rawValue)
            guard l2Table.rawValue < fileByteCount else {
                pastEnd.add(place)
                continue
            }
            l2Tables.insert(geometry.cluster(at: l2Table))
            referenced.insert(geometry.cluster(at: l2Table))
        }
    }

    private mutating func addL2Tables<S: Storage & ~Copyable>(from storage: borrowing S) throws(QCOW2Error) {
        let tablesPerRead = max(1, (1 << 18) / geometry.clusterSize)
        var next: UInt64 = 0
        while let run = l2Tables.nextRun(from: next, inSet: true), !isCut {
            let count = min(run.count, tablesPerRead)
            let offset = geometry.offset(ofCluster: run.first)
            let bytes = try readCounted(count * geometry.clusterSize, at: offset, from: storage)
            for position in stride(from: 0, to: bytes.count, by: geometry.l2EntryByteCount) {
                let raw: UInt64 = bytes.span.loadBigEndian(at: position)
                guard raw != 0 || geometry.hasExtendedL2 else { continue }
                addL2Entry(raw, bytes.span, position, offset.saturating(adding: UInt64(position)))
            }
            next = run.first + count
        }
    }

    private mutating func addL2Entry(_ raw: UInt64, _ bytes: Span<UInt8>, _ position: Int, _ place: HostOffset) {
        let entry = L2Entry(rawValue: raw)
        var isInvalid = entry.defect(in: geometry) != nil
        if geometry.hasExtendedL2, !isInvalid {
            let bitmap = SubclusterBitmap(rawValue: bytes.loadBigEndian(at: position + 8))
            isInvalid = bitmap.defect(beside: entry) != nil
        }
        if isInvalid { invalid.add(place) }
        guard !hasExternalData else { return }
        if entry.isCompressed {
            let compressed = CompressedCluster(descriptor: raw & L2Entry.Bits.descriptor, in: geometry)
            largestOffset = max(largestOffset, compressed.end - 1)
            guard compressed.offset.rawValue < fileByteCount else { return pastEnd.add(place) }
            referenced.insert(compressed.run(in: geometry))
        } else if let offset = entry.ownCluster {
            guard geometry.isAligned(offset) else { return isInvalid ? () : invalid.add(place) }
            largestOffset = max(largestOffset, offset.rawValue)
            guard offset.rawValue < fileByteCount else { return pastEnd.add(place) }
            referenced.insert(geometry.cluster(at: offset))
        }
    }
}
