// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The active tree as guest writes leave it: its L1 table, and the L2 tables that were looked at or changed.
struct SessionTables: Sendable {
    private let geometry: ImageGeometry
    /// The L1 table, in which a changed L2 table still is where the file has it.
    var l1: [L1Entry]
    private var tables: [Int: Table] = [:]
    private(set) var dirtyCount = 0

    private struct Table: Sendable {
        var bytes: [UInt8]
        var isDirty: Bool
    }

    init(_ l1: [L1Entry], _ geometry: ImageGeometry) {
        self.l1 = l1
        self.geometry = geometry
    }

    /// Whether there is a table below an L1 entry, in the file or only here.
    func hasTable(_ index: Int) -> Bool { tables[index] != nil || index < l1.count && l1[index].l2Table != nil }

    /// The bytes of a table that was looked at or changed.
    func bytes(_ index: Int) -> [UInt8]? { tables[index]?.bytes }

    /// The bytes of the table below an L1 entry; zeros when there is none.
    mutating func load<S: Storage & ~Copyable>(
        _ index: Int, from storage: borrowing S
    ) throws(QCOW2Error) -> [UInt8] {
        if let table = tables[index] { return table.bytes }
        guard index < l1.count, let offset = l1[index].l2Table else {
            return [UInt8](repeating: 0, count: geometry.clusterByteCount)
        }
        let bytes = try storage.readBytes(geometry.clusterByteCount, at: offset)
        tables[index] = Table(bytes: bytes, isDirty: false)
        return bytes
    }

    /// Changes one entry of a table, which comes into being if it wasn't there.
    mutating func set<S: Storage & ~Copyable>(
        _ entry: L2Entry, _ units: ClusterUnits, at position: Int, of index: Int, from storage: borrowing S
    ) throws(QCOW2Error) {
        if tables[index] == nil { tables[index] = Table(bytes: try load(index, from: storage), isDirty: false) }
        if tables[index]?.isDirty == false { dirtyCount += 1 }
        tables[index]?.isDirty = true
        let isExtended = geometry.hasExtendedL2
        try tables[index]?.bytes.withMutableSpan(of: 0..<geometry.clusterByteCount) { bytes in
            bytes.storeBigEndian(entry.rawValue, at: position)
            if isExtended { bytes.storeBigEndian(units.bitmap.rawValue, at: position + 8) }
        }
    }

    /// The L1 indices of the tables that changed, in ascending order.
    var dirtyTables: [Int] { tables.keys.filter { tables[$0]?.isDirty == true }.sorted() }

    /// Says where a changed table will be, and returns its bytes.
    mutating func move(_ index: Int, to offset: HostOffset) -> [UInt8] {
        l1[index] = L1Entry(l2Table: offset, isCopied: true)
        if tables[index]?.isDirty == true { dirtyCount -= 1 }
        tables[index]?.isDirty = false
        return tables[index]?.bytes ?? []
    }

    /// Forgets the tables that didn't change, if there are more than `limit`.
    mutating func trim(to limit: Int) {
        guard tables.count - dirtyCount > limit else { return }
        tables = tables.filter { $0.value.isDirty }
    }
}
