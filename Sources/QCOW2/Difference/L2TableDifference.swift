// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Compares two L2 tables of the same guest range, entry by entry.
///
/// Sections "2.3" to "2.5". What is mapped to the same place is the same; the copied flag says nothing about data.
struct L2TableDifference {
    let geometry: ImageGeometry
    /// Whether what isn't allocated is in a backing file; without one it reads as zeros.
    let hasBackingFile: Bool
    private let scan: L2TableScan
    private let fileByteCount: UInt64
    /// What a plain entry doesn't have.
    private let oddBits: UInt64

    init(_ geometry: ImageGeometry, hasBackingFile: Bool, fileByteCount: UInt64) {
        self.geometry = geometry
        self.hasBackingFile = hasBackingFile
        self.fileByteCount = fileByteCount
        scan = L2TableScan(geometry: geometry, fileByteCount: fileByteCount)
        oddBits = ~(L2Entry.Bits.hostOffset & ~(geometry.clusterSize - 1))
    }

    /// What the earlier state has.
    enum Origin {
        /// The table beside.
        case table
        /// Nothing but zeros: what differs from them is a change.
        case zeros
        /// No disk at all: everything is a change.
        case nothing
    }

    /// A table, and where it is; zeros for one that doesn't exist.
    struct Table {
        var bytes: [UInt8] = []
        var offset = HostOffset(0)
    }

    /// Where a cluster's or a subcluster's bytes are.
    private enum Place: Equatable {
        case unallocated
        case zero
        case data(UInt64)
        case compressed(UInt64)
    }

    /// Hands out what differs in a guest range.
    ///
    /// - Parameters:
    ///   - origin: What the earlier state has.
    ///   - old: Its table; not looked at unless that is the origin.
    ///   - new: The later state's table.
    ///   - start: The first guest byte below the tables.
    ///   - range: The guest bytes to compare, all below the tables.
    ///   - sink: Gets the extents.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that can't be, if it differs from the other table's.
    func compare(
        _ origin: Origin, _ old: Table, _ new: Table, from start: UInt64, in range: Range<UInt64>,
        _ sink: inout ChangedExtentSink
    ) throws(QCOW2Error) {
        let clusterBits = UInt64(geometry.clusterBits)
        let first = Int((range.lowerBound &- start) >> clusterBits)
        let end = Int((range.upperBound &- start &+ geometry.clusterSize &- 1) >> clusterBits)
        let (oldBytes, newBytes) = (old.bytes, new.bytes)
        let (oldSpan, newSpan) = (oldBytes.span, newBytes.span)
        let isTable = if case .table = origin { true } else { false }
        let mask = ~L2Entry.Bits.copied
        for index in first..<end {
            let position = index &* geometry.l2EntryByteCount
            let newRaw: UInt64 = newSpan.loadBigEndian(at: position)
            if isTable {
                let oldRaw: UInt64 = oldSpan.loadBigEndian(at: position)
                var differs = (oldRaw ^ newRaw) & mask != 0
                if geometry.hasExtendedL2 {
                    let oldBitmap: UInt64 = oldSpan.loadBigEndian(at: position &+ 8)
                    differs = differs || oldBitmap != newSpan.loadBigEndian(at: position &+ 8)
                }
                if !differs { continue }
            }
            let cluster = start &+ UInt64(index) << clusterBits
            let unitCount = geometry.hasExtendedL2 ? SubclusterBitmap.subclusterCount : 1
            let unit = geometry.clusterSize / UInt64(unitCount)
            let oldRaw: UInt64 = isTable ? oldSpan.loadBigEndian(at: position) : 0
            if isTable { try check(oldRaw, oldSpan, position, old.offset) }
            try check(newRaw, newSpan, position, new.offset)
            for subcluster in 0..<unitCount {
                let to = place(newRaw, newSpan, position, subcluster)
                let isSame: Bool
                switch origin {
                case .table: isSame = areSame(place(oldRaw, oldSpan, position, subcluster), to)
                case .zeros: isSame = areSame(.zero, to)
                case .nothing: isSame = false
                }
                if isSame { continue }
                let low = max(range.lowerBound, cluster &+ UInt64(subcluster) &* unit)
                let high = min(range.upperBound, cluster &+ UInt64(subcluster &+ 1) &* unit)
                guard low < high else { continue }
                try sink.add(low..<high, kind(of: to))
            }
        }
    }

    private func areSame(_ old: Place, _ new: Place) -> Bool {
        if old == new { return true }
        guard !hasBackingFile else { return false }
        return (old == .zero && new == .unallocated) || (old == .unallocated && new == .zero)
    }

    private func kind(of place: Place) -> ChangedExtent.Kind {
        switch place {
        case .data, .compressed: .data
        case .zero: .zero
        case .unallocated: hasBackingFile ? .backing : .zero
        }
    }

    @inline(__always)
    private func check(
        _ raw: UInt64, _ table: Span<UInt8>, _ position: Int, _ offset: HostOffset
    ) throws(QCOW2Error) {
        let host = raw & ~L2Entry.Bits.copied
        if host & oddBits == 0, host < fileByteCount, !geometry.hasExtendedL2 { return }
        _ = try scan.target(of: L2Entry(rawValue: raw), in: table, position, offset)
    }

    @inline(__always)
    private func place(_ raw: UInt64, _ table: Span<UInt8>, _ position: Int, _ subcluster: Int) -> Place {
        let host = raw & ~L2Entry.Bits.copied
        if host != 0, host & oddBits == 0, !geometry.hasExtendedL2 { return .data(host) }
        return oddPlace(L2Entry(rawValue: raw), table, position, subcluster)
    }

    @inline(never)
    private func oddPlace(_ entry: L2Entry, _ table: Span<UInt8>, _ position: Int, _ subcluster: Int) -> Place {
        if geometry.hasExtendedL2, !entry.isCompressed {
            switch SubclusterBitmap(rawValue: table.loadBigEndian(at: position &+ 8)).mapping(ofSubcluster: subcluster)
            {
            case .unallocated: return .unallocated
            case .zero: return .zero
            case .allocated: break
            }
        }
        switch entry.mapping(in: geometry) {
        case .unallocated: return .unallocated
        case .zero: return .zero
        case .standard(let offset): return .data(offset.rawValue)
        case .compressed: return .compressed(entry.rawValue & L2Entry.Bits.descriptor)
        }
    }
}
