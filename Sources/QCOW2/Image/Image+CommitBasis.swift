// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What a plan was made from, to notice before the switch that another program has changed it since.
///
/// The header's sector, and the tables that every plan copies from: the active L1 table, the refcount table and the
/// snapshot table, the first MiB of them together. Not noticed are changes of L2 tables, refcount blocks, other L1
/// tables, guest data and bitmaps, of what is behind that MiB, and those in the moment between looking and switching.
struct CommitBasis: Sendable {
    private static let maximumTableByteCount: UInt64 = 1 << 20

    /// The header's sector.
    let sector: [UInt8]
    private var tables: [(name: String, offset: HostOffset, bytes: [UInt8])] = []

    /// What another program has changed.
    struct Change {
        let what: String
        /// Whether it may have put something of its own where the new state was being prepared.
        let mayUseTail: Bool
    }

    /// That of a plan which is going to be made from what is open.
    init<S: Storage & ~Copyable>(_ opened: OpenedImage, reading storage: borrowing S) throws(QCOW2Error) {
        sector = opened.headerSector
        try addTables(opened.header, snapshotTableByteCount: opened.snapshotTableByteCount, reading: storage)
    }

    /// That of a plan which is going to be made from what is in the file now, as far as it can be read.
    init<S: Storage & ~Copyable>(reading storage: borrowing S) throws(QCOW2Error) {
        sector = try storage.readBytes(Int(ImageGeometry.sectorSize), at: HostOffset(0))
        guard let header = try? Header(decoding: sector.span) else { return }
        // Nobody knows how long the snapshot table is before its entries were read.
        let byteCount = header.snapshotCount > 0 ? header.geometry.clusterSize : 0
        try addTables(header, snapshotTableByteCount: byteCount, reading: storage)
    }

    private mutating func addTables<S: Storage & ~Copyable>(
        _ header: Header, snapshotTableByteCount: UInt64, reading storage: borrowing S
    ) throws(QCOW2Error) {
        let refcountByteCount = UInt64(header.refcountTableClusterCount) * header.geometry.clusterSize
        let fileByteCount = try storage.byteCount()
        var rest = Self.maximumTableByteCount
        for (name, offset, byteCount) in [
            ("active L1 table", header.l1TableOffset, UInt64(header.l1EntryCount) * UInt64(L1Entry.byteCount)),
            ("refcount table", header.refcountTableOffset, refcountByteCount),
            ("snapshot table", header.snapshotTableOffset, snapshotTableByteCount),
        ] {
            let count = min(byteCount, rest, fileByteCount - min(offset.rawValue, fileByteCount))
            guard count > 0 else { continue }
            rest -= count
            tables.append((name, offset, try storage.readBytes(Int(count), at: offset)))
        }
    }

    /// Compares with what is in the file now, the header last.
    ///
    /// - Parameters:
    ///   - storage: The file.
    ///   - end: The end of all that the commit itself has written, or could have.
    /// - Returns: What has changed, if anything has.
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    func change<S: Storage & ~Copyable>(
        in storage: borrowing S, writtenUpTo end: UInt64
    ) throws(QCOW2Error) -> Change? {
        for table in tables where try storage.readBytes(table.bytes.count, at: table.offset) != table.bytes {
            return Change(what: table.name, mayUseTail: true)
        }
        guard try storage.byteCount() <= end else { return Change(what: "length", mayUseTail: true) }
        let found = try storage.readBytes(sector.count, at: HostOffset(0))
        return found == sector ? nil : Change(what: "header", mayUseTail: !refersToTheSame(found))
    }

    /// Whether another header sector points to the same tables as this one.
    private func refersToTheSame(_ other: [UInt8]) -> Bool {
        func tables(_ sector: [UInt8]) -> [UInt64]? {
            guard let header = try? Header(decoding: sector.span) else { return nil }
            return [
                header.l1TableOffset.rawValue, UInt64(header.l1EntryCount), header.refcountTableOffset.rawValue,
                UInt64(header.refcountTableClusterCount), header.snapshotTableOffset.rawValue,
                UInt64(header.snapshotCount),
            ]
        }
        guard let mine = tables(sector) else { return false }
        return tables(other) == mine
    }
}

extension Image where S: ~Copyable {
    /// What a plan will be made from; before anything is read for it, so that no change after that goes unnoticed.
    ///
    /// - Throws: ``QCOW2Error/Code/inUse`` or ``QCOW2Error/Code/inputOutput``.
    func commitBasis() throws(QCOW2Error) -> CommitBasis {
        try checkUnchanged()
        return try CommitBasis(opened, reading: storage)
    }

    /// Refuses to go on from what is open when the header in the file has become another.
    ///
    /// The tables of the old one may be gone, which would look like corruption.
    func checkUnchanged() throws(QCOW2Error) {
        // Until it is settled which header counts, the file may have either.
        guard unsettledSector == nil else { return }
        guard try storage.readBytes(opened.headerSector.count, at: HostOffset(0)) == opened.headerSector else {
            throw .changed("header", of: storage.name)
        }
    }
}

extension QCOW2Error {
    /// Another program changed the image under us.
    static func changed(_ what: String, of file: String) -> Self {
        Self(.inUse, "The \(what) of '\(file)' changed: another program writes to it.")
    }
}
