// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The tables that the header and its extensions point to, and what follows each in its last cluster.
///
/// Whether they are where they can be is the reading's to say.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectTables<S: Storage & ~Copyable>(
        _ reading: ImageReading, from storage: borrowing S
    ) throws(QCOW2Error) {
        let (header, geometry) = (reading.header, reading.geometry)
        addTable("active L1 table", at: header.l1TableOffset, byteCount: Self.l1ByteCount(header.l1EntryCount))
        // As the header claims; the reading cut it to what is there.
        addTable(
            "refcount table", at: HostOffset(reading.fields[Layout.refcountTableOffset]),
            byteCount: reading.fields[Layout.refcountTableClusters]
                << UInt64(reading.fields.geometry?.clusterBits ?? 64))
        for table in tables { annotateEntries(of: table, from: storage) }
        if let record = reading.extensions.last(.encryption),
            let encryption = try? EncryptionHeader(decoding: record, in: geometry)
        {
            addTable("encryption header", at: encryption.region, byteCount: encryption.regionByteCount)
        }
        if let record = reading.extensions.last(.bitmaps),
            let bitmaps = try? BitmapsExtension(decoding: record, in: geometry)
        {
            addTable(
                "bitmap directory", at: bitmaps.directoryOffset, byteCount: bitmaps.directoryByteCount,
                isInUse: reading.hasTrustedBitmaps)
            try inspectBitmaps(reading, bitmaps, from: storage)
        }
    }

    static func l1ByteCount(_ entryCount: UInt32) -> UInt64 { UInt64(entryCount) * UInt64(L1Entry.byteCount) }

    /// Adds a table of the image.
    mutating func addTable(_ name: String, at offset: HostOffset, byteCount: UInt64, isInUse: Bool = true) {
        guard byteCount != 0 else { return }
        let present = offset.rawValue < fileByteCount ? min(byteCount, fileByteCount - offset.rawValue) : 0
        tables.append(Table(name: name, offset: offset, byteCount: byteCount, presentByteCount: present))
        if isInUse { addRegion(name, at: offset, byteCount: byteCount) }
    }

    /// Adds a part of the file that is in use, as far as the file has it.
    mutating func addRegion(_ name: String, at offset: HostOffset, byteCount: UInt64) {
        guard offset.rawValue > 0, offset.rawValue < fileByteCount, byteCount > 0 else { return }
        regions.append(
            Region(name: name, offset: offset, byteCount: min(byteCount, fileByteCount - offset.rawValue)))
    }

    /// The first entries of a table that aren't zero, for the dump.
    private mutating func annotateEntries<S: Storage & ~Copyable>(of table: Table, from storage: borrowing S) {
        let fieldLimit = 1024
        var fields: [AnnotatedField] = []
        let bytes = read(min(table.presentByteCount, 1 << 20), at: table.offset, from: storage)
        if bytes.count < table.presentByteCount { isDumpCut = true }
        for position in stride(from: 0, through: bytes.count - 8, by: 8) {
            let raw: UInt64 = bytes.span.loadBigEndian(at: position)
            guard raw != 0 else { continue }
            guard fields.count < fieldLimit else {
                isDumpCut = true
                break
            }
            fields.append(
                AnnotatedField(
                    name: "entry \(position / 8)", offset: table.offset.saturating(adding: UInt64(position)),
                    bytes: Array(bytes[position..<(position + 8)])))
        }
        annotate(table.name, at: table.offset, fields)
    }

    /// Finds what is behind the end of each table in its last cluster.
    mutating func inspectRegions<S: Storage & ~Copyable>(
        _ geometry: ImageGeometry, from storage: borrowing S
    ) throws(QCOW2Error) {
        let sorted = regions.filter { geometry.isAligned($0.offset) }
            .sorted { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }
        var end: UInt64 = 0
        for (index, region) in sorted.enumerated() {
            try work.checkForWish()
            // Safe: the length was cut to what the file has.
            end = max(end, region.offset.rawValue + region.byteCount)
            guard index + 1 == sorted.count || sorted[index + 1].offset.rawValue >= end else { continue }
            inspectSlack(of: region, behind: end, geometry, from: storage)
        }
    }

    private static func clusterEnd(of end: UInt64, _ geometry: ImageGeometry) -> UInt64 {
        let (sum, overflow) = end.addingReportingOverflow(geometry.clusterSize - 1)
        return overflow ? .max : sum & ~(geometry.clusterSize - 1)
    }

    private mutating func inspectSlack<S: Storage & ~Copyable>(
        of region: Region, behind end: UInt64, _ geometry: ImageGeometry, from storage: borrowing S
    ) {
        let slackEnd = min(Self.clusterEnd(of: end, geometry), fileByteCount)
        guard end < slackEnd else { return }
        do throws(QCOW2Error) {
            guard try storage.dataRange(in: end..<slackEnd) != nil else { return }
        } catch {
            report(.readFailed, error.message, at: error.offset)
            return
        }
        let bytes = read(slackEnd - end, at: HostOffset(end), from: storage)
        guard let first = bytes.firstIndex(where: { $0 != 0 }) else { return }
        let count = bytes.reduce(0) { $0 + ($1 == 0 ? 0 : 1) }
        report(
            .dataInSlack, "\(count) bytes behind the end of the \(region.name), in its last cluster, aren't zero.",
            at: HostOffset(end).saturating(adding: UInt64(first)), in: region.name)
        // Entries start at multiples of eight.
        let start = min(bytes.count, Int((8 - end % 8) % 8))
        remnants.collect(
            in: Array(bytes[start...]), from: HostOffset(end).saturating(adding: UInt64(start)), place: .slack)
    }
}
