// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The copied flags that the active tree should have, given what the refcounts become.
///
/// Section "3.4 COPIED". Takes a bit per entry of the active tree's L2 tables.
struct ActiveFlags: Sendable {
    /// By the L2 table's index, whether the L1 entry of a table gets the flag.
    private(set) var isPrivate: [Bool]
    private var tables: [Int: Table] = [:]

    private struct Table: Sendable {
        var bits: CopiedFlags.BitSet
        /// Whether some entry has another flag than it should.
        var differs = false
    }

    init(_ l2Tables: L2Tables) { isPrivate = [Bool](repeating: false, count: l2Tables.count) }

    /// Notes which L2 tables in a window will have a refcount of one.
    mutating func notePrivate(_ l2Tables: L2Tables, _ window: CheckWindow<UInt64>, _ geometry: ImageGeometry) {
        for index in 0..<l2Tables.count {
            let cluster = geometry.cluster(at: l2Tables[index].offset)
            if window.covers(cluster) { isPrivate[index] = window.isOne(cluster) }
        }
    }

    /// Notes which clusters in a window that a table refers to will have a refcount of one.
    mutating func note(_ index: Int, _ bytes: Span<UInt8>, _ window: CheckWindow<UInt64>, _ geometry: ImageGeometry) {
        var table = tables[index] ?? Self.table(bytes, geometry)
        for number in 0..<geometry.l2EntryCount {
            let entry = L2Entry(rawValue: bytes.loadBigEndian(at: number &* geometry.l2EntryByteCount))
            guard let offset = entry.ownCluster, geometry.isAligned(offset) else { continue }
            let cluster = geometry.cluster(at: offset)
            guard window.covers(cluster) else { continue }
            let isOne = window.isOne(cluster)
            if isOne != table.bits[number] { table.bits.set(number, to: isOne) }
            if isOne != entry.isCopied { table.differs = true }
        }
        tables[index] = table
    }

    /// A table's flags as they are, except those that no entry of their kind may have.
    private static func table(_ bytes: Span<UInt8>, _ geometry: ImageGeometry) -> Table {
        var table = Table(bits: CopiedFlags.BitSet(count: geometry.l2EntryCount))
        for number in 0..<geometry.l2EntryCount {
            let entry = L2Entry(rawValue: bytes.loadBigEndian(at: number &* geometry.l2EntryByteCount))
            guard entry.isCopied else { continue }
            if entry.ownCluster == nil { table.differs = true } else { table.bits.set(number, to: true) }
        }
        return table
    }

    /// The tables that change, in file order, with their flags.
    var changes: [(table: Int, flags: CopiedFlags)] {
        tables.keys.sorted().compactMap { index in
            tables[index].flatMap { $0.differs ? (index, .mixed($0.bits)) : nil }
        }
    }
}
