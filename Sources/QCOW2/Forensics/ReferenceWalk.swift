// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Learns which clusters an image refers to, from tables that may say anything.
///
/// Reads every allocated byte of an L1 table once, however many snapshots share it, and every L2 table once.
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
    private var isPastLimit = false
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

    /// Whether a limit of bytes or of memory ended the walk, so that more may be referred to.
    var isCut: Bool { isPastLimit || referenced.isCut || l2Tables.isCut }

    /// Adds what the L1 tables in these parts of the file refer to.
    mutating func addL1Tables<S: Storage & ~Copyable>(
        _ tables: [(offset: HostOffset, byteCount: UInt64)], from storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        try forEachPiece(of: tables, from: storage, &work) { walk, bytes, place in walk.addL1Entries(bytes, at: place) }
        try addL2Tables(from: storage, &work)
    }

    /// Adds what the bitmap tables in these parts of the file refer to.
    mutating func addBitmapTables<S: Storage & ~Copyable>(
        _ tables: [(offset: HostOffset, byteCount: UInt64)], from storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        try forEachPiece(of: tables, from: storage, &work) { walk, bytes, _ in
            for position in stride(from: 0, to: bytes.count, by: BitmapTableEntry.byteCount) {
                let entry = BitmapTableEntry(rawValue: bytes.span.loadBigEndian(at: position))
                if let data = entry.data { walk.referenced.insert(walk.geometry.cluster(at: data)) }
            }
        }
    }

    /// Reads tables of 8-byte entries in pieces: those that overlap once, as the union of their bytes, and no holes.
    private mutating func forEachPiece<S: Storage & ~Copyable>(
        of tables: [(offset: HostOffset, byteCount: UInt64)], from storage: borrowing S, _ work: inout WorkMeter,
        _ body: (_ walk: inout Self, _ bytes: [UInt8], _ place: HostOffset) -> Void
    ) throws(QCOW2Error) {
        var done: UInt64 = 0
        for table in tables.sorted(by: { $0.offset < $1.offset }) {
            guard table.offset.rawValue < fileByteCount else { continue }
            let end = table.offset.rawValue + min(table.byteCount, fileByteCount - table.offset.rawValue)
            var position = max(table.offset.rawValue, done)
            done = max(done, end)
            try work.checkForWish()
            while position + 8 <= end, !isCut {
                guard let data = try storage.dataRange(in: position..<end) else { break }
                // Entries start at multiples of eight from the table's start.
                position += (data.lowerBound - position) / 8 * 8
                let byteCount = min(end - position, 1 << 18, (data.upperBound - position + 7) / 8 * 8) / 8 * 8
                guard byteCount > 0 else { break }
                body(&self, try read(byteCount, at: HostOffset(position), from: storage, &work), HostOffset(position))
                position += byteCount
            }
        }
    }

    private mutating func read<S: Storage & ~Copyable>(
        _ byteCount: UInt64, at offset: HostOffset, from storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> [UInt8] {
        readByteCount += byteCount
        if readByteCount > byteLimit { isPastLimit = true }
        try work.advance(by: byteCount)
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

    private mutating func addL2Tables<S: Storage & ~Copyable>(
        from storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        let tablesPerRead = max(1, (1 << 18) / geometry.clusterSize)
        var next: UInt64 = 0
        while let run = l2Tables.nextRun(from: next, inSet: true), !isCut {
            let start = geometry.offset(ofCluster: run.first).rawValue
            try work.checkForWish()
            // Past its end the file reads as zeros.
            guard
                let data = try storage.dataRange(
                    in: start..<min(geometry.offset(ofCluster: run.end).rawValue, fileByteCount))
            else {
                next = run.end
                continue
            }
            let first = geometry.cluster(at: HostOffset(data.lowerBound))
            let count = min(geometry.cluster(at: HostOffset(data.upperBound - 1)) - first + 1, tablesPerRead)
            let offset = geometry.offset(ofCluster: first)
            let bytes = try read(count * geometry.clusterSize, at: offset, from: storage, &work)
            for position in stride(from: 0, to: bytes.count, by: geometry.l2EntryByteCount) {
                let raw: UInt64 = bytes.span.loadBigEndian(at: position)
                guard raw != 0 || geometry.hasExtendedL2 else { continue }
                addL2Entry(raw, bytes.span, position, offset.saturating(adding: UInt64(position)))
            }
            next = first + count
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
            let compressed = entry.compressed(in: geometry)
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
