// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The tables that the header and its extensions point to, and whether the file has them: invariants I-7 to I-9.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectTables<S: Storage & ~Copyable>(
        _ header: LenientHeader, from storage: borrowing S
    ) throws(QCOW2Error) {
        guard header.version ?? 0 >= 2 else { return }
        let clusterSize = header.geometry?.clusterSize
        addTable(
            "active L1 table", at: HostOffset(header[Layout.l1TableOffset]),
            byteCount: header[Layout.l1Size] * UInt64(L1Entry.byteCount), clusterSize,
            from: HostOffset(UInt64(Layout.l1TableOffset.offset)))
        let (tableByteCount, overflow) = header[Layout.refcountTableClusters].multipliedReportingOverflow(
            by: clusterSize ?? 0)
        addTable(
            "refcount table", at: HostOffset(header[Layout.refcountTableOffset]),
            byteCount: overflow ? nil : tableByteCount, clusterSize,
            from: HostOffset(UInt64(Layout.refcountTableOffset.offset)))
        for record in extensions { addTables(of: record, header, clusterSize) }
        if let geometry = header.geometry { try inspectBitmaps(header, geometry, from: storage) }
        for table in tables where ["active L1 table", "refcount table"].contains(table.name) {
            annotateEntries(of: table, from: storage)
        }
        inspectEncryptionHeader(header, from: storage)
    }

    /// Adds a table, and says what is wrong with its place.
    mutating func addTable(
        _ name: String, at offset: HostOffset, byteCount: UInt64?, _ clusterSize: UInt64?, from place: HostOffset,
        isInUse: Bool = true
    ) {
        guard byteCount != 0 else { return }
        let present = offset.rawValue < fileByteCount ? fileByteCount - offset.rawValue : 0
        let presentByteCount = min(byteCount ?? .max, present)
        tables.append(Table(name: name, offset: offset, byteCount: byteCount, presentByteCount: presentByteCount))
        checkPlace(of: name, at: offset, byteCount: byteCount, clusterSize, from: place)
        guard presentByteCount > 0, offset.rawValue > 0, isInUse else { return }
        regions.append(Region(name: name, offset: offset, byteCount: presentByteCount, hasSlack: true))
    }

    /// Says when a table is misaligned or not in the file.
    mutating func checkPlace(
        of name: String, at offset: HostOffset, byteCount: UInt64?, _ clusterSize: UInt64?, from place: HostOffset
    ) {
        if offset.rawValue == 0 {
            report(
                .tableOutOfBounds, .corruption, "The \(name) would lie in the header's cluster.", at: place, in: name)
        }
        if let clusterSize, offset.rawValue % clusterSize != 0 {
            report(
                .tableMisaligned, .corruption, "The \(name) is at \(offset), not at the start of a cluster.",
                at: place, in: name)
        }
        // Bytes past the end of the file read as zeros, but no more than the rest of a table's last cluster.
        let slack = clusterSize ?? ImageGeometry.sectorSize
        let (end, overflow) = offset.rawValue.addingReportingOverflow(byteCount ?? .max)
        let (limit, isHuge) = fileByteCount.addingReportingOverflow(slack)
        guard overflow || offset.rawValue >= fileByteCount || (!isHuge && end >= limit) else { return }
        let length = byteCount.map(String.init) ?? "more than 2^64"
        let fileByteCount = fileByteCount
        report(
            .tableOutOfBounds, .corruption,
            "The \(name) of \(length) bytes at \(offset) is not, or not whole, in the file of \(fileByteCount) bytes.",
            at: place, in: name)
    }

    private mutating func addTables(of record: ExtensionRecord, _ header: LenientHeader, _ clusterSize: UInt64?) {
        guard record.claimedByteCount == record.data.count else { return }
        switch HeaderExtension.Kind(rawValue: record.type) {
        case .encryption where record.data.count == EncryptionHeader.byteCount:
            addTable(
                "encryption header",
                at: HostOffset(EncryptionHeader.Layout.offset.load(from: record.data.span)),
                byteCount: EncryptionHeader.Layout.length.load(from: record.data.span), clusterSize,
                from: record.offset)
        case .bitmaps where record.data.count == BitmapsExtension.byteCount:
            addTable(
                "bitmap directory",
                at: HostOffset(BitmapsExtension.Layout.directoryOffset.load(from: record.data.span)),
                byteCount: BitmapsExtension.Layout.directorySize.load(from: record.data.span), clusterSize,
                from: record.offset, isInUse: header.hasTrustedBitmaps)
        default: break
        }
    }

    /// Section "5.2 Encryption".
    private mutating func inspectEncryptionHeader<S: Storage & ~Copyable>(
        _ header: LenientHeader, from storage: borrowing S
    ) {
        let table = tables.last { $0.name == "encryption header" }
        if (table != nil) != (header[Layout.cryptMethod] == 2) {
            report(
                .encryptionInvalid, .corruption,
                table == nil
                    ? "The header says LUKS, but there is no encryption header."
                    : "There is an encryption header, but the header doesn't say LUKS.",
                at: HostOffset(UInt64(Layout.cryptMethod.offset)))
        }
        guard let table, table.presentByteCount > 0 else { return }
        let magic = read(6, at: table.offset, from: storage)
        if magic != [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE] {
            report(
                .encryptionInvalid, .corruption, "The encryption header doesn't begin like a LUKS header.",
                at: table.offset, in: table.name)
        }
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

    /// Finds tables that share clusters, and what is behind the end of each in its last cluster.
    mutating func inspectRegions<S: Storage & ~Copyable>(
        _ geometry: ImageGeometry, from storage: borrowing S
    ) throws(QCOW2Error) {
        let sorted = ([Region(name: "header", offset: HostOffset(0), byteCount: 1, hasSlack: false)] + regions)
            .filter { geometry.isAligned($0.offset) }
            .sorted { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }
        var end: UInt64 = 0
        for index in sorted.indices {
            try work.checkForWish()
            let region = sorted[index]
            if index > 0, region.offset.rawValue < Self.clusterEnd(of: end, geometry) {
                report(
                    .tablesOverlap, .corruption,
                    "The \(region.name) overlaps the \(sorted[index - 1].name).", at: region.offset, in: region.name)
            }
            // Safe: the length was cut to what the file has.
            end = max(end, region.offset.rawValue + region.byteCount)
            let isLast = index + 1 == sorted.count || sorted[index + 1].offset.rawValue >= end
            if isLast, region.hasSlack { inspectSlack(of: region, behind: end, geometry, from: storage) }
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
            report(.readFailed, .corruption, error.message, at: error.offset)
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
