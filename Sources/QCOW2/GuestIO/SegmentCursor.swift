// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Walks over a guest range and hands out its segments, neighbours that go on alike as one.
///
/// Compressed clusters come one by one. Costs O(L1 entries) plus O(L2 entries below those that aren't zero).
struct SegmentCursor {
    private let map: ClusterMap
    private let scan: L2TableScan
    private var position: UInt64
    private let end: UInt64
    /// What was found behind the last segment and didn't go on like it.
    private var pending: Segment?
    /// The part of an L2 table that was used last, and where it is.
    private var slice: [UInt8] = []
    private var sliceOffset = HostOffset(.max)
    /// The part of the L1 table that was used last, and where it is, unless the map holds the table.
    private var l1Slice: [UInt8] = []
    private var l1SliceOffset = HostOffset(.max)

    init(_ map: ClusterMap, in guest: Range<UInt64>) {
        self.map = map
        scan = L2TableScan(geometry: map.geometry, fileByteCount: map.fileByteCount)
        position = guest.lowerBound
        end = guest.upperBound
    }

    /// The next segment; `nil` at the end of the range.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` or ``QCOW2Error/Code/inputOutput``, once all segments ahead of the fault
    ///   have been handed out.
    mutating func next(_ load: SliceLoad) throws(QCOW2Error) -> Segment? {
        guard position < end else { return nil }
        var segment: Segment
        if let found = pending { segment = found } else { segment = try piece(load) }
        pending = nil
        position = segment.end
        if case .compressed = segment.mapping { return segment }
        while position < end {
            // A fault that lies ahead is met again, and thrown, by the next call.
            guard let following = try? piece(load) else { return segment }
            guard segment.merge(following) else {
                pending = following
                return segment
            }
            position = segment.end
        }
        return segment
    }

    /// What starts at the position, up to a point where another table must be looked at.
    private mutating func piece(_ load: SliceLoad) throws(QCOW2Error) -> Segment {
        let geometry = map.geometry
        let indices = geometry.indices(of: GuestOffset(position))
        let (entry, next) = try l1Entry(at: indices.l1, load)
        guard let table = try map.l2Table(of: entry, indices.l1) else {
            // Safe: at most 2^22 entries of 2^39 bytes.
            let isLast = next >= map.indices.upperBound
            return segment(.unallocated, upTo: isLast ? nil : next * map.l1EntrySpan - 1)
        }
        let sliceByteCount = map.sliceByteCount
        let byteIndex = indices.l2 * geometry.l2EntryByteCount
        let start = byteIndex / sliceByteCount * sliceByteCount
        let offset = table.saturating(adding: UInt64(start))
        if offset != sliceOffset {
            slice = try load(offset, sliceByteCount)
            sliceOffset = offset
        }
        return geometry.hasExtendedL2
            ? try extendedPiece(byteIndex - start, indices.byte) : try standardPiece(byteIndex - start, indices.byte)
    }

    /// An L1 entry, and the index of the next one that may be another; empty ones are passed over.
    private mutating func l1Entry(
        at index: UInt64, _ load: SliceLoad
    ) throws(QCOW2Error) -> (entry: L1Entry, next: UInt64) {
        guard map.indices.contains(index) else {
            return (.unallocated, index < map.indices.lowerBound ? map.indices.lowerBound : .max)
        }
        if let entries = map.entries { return (entries[Int(index - map.indices.lowerBound)], index + 1) }
        let perSlice = UInt64(map.sliceByteCount / L1Entry.byteCount)
        let first = index / perSlice * perSlice
        let offset = map.place(of: first)
        if offset != l1SliceOffset {
            l1Slice = try load(offset, map.sliceByteCount)
            l1SliceOffset = offset
        }
        let table = l1Slice.span
        var position = Int(index - first) * L1Entry.byteCount
        let entry = L1Entry(rawValue: table.loadBigEndian(at: position))
        position += L1Entry.byteCount
        if entry == .unallocated {
            while position < table.count, table.loadBigEndian(at: position, as: UInt64.self) == 0 { position &+= 8 }
        }
        return (entry, first + UInt64(position / L1Entry.byteCount))
    }

    /// A segment from the position to the byte `last`, or to the range's end if that is nearer.
    private func segment(_ mapping: Segment.Mapping, upTo last: UInt64?) -> Segment {
        let rest = end - position
        guard let last, last - position < rest - 1 else {
            return Segment(start: position, byteCount: rest, mapping: mapping)
        }
        return Segment(start: position, byteCount: last - position + 1, mapping: mapping)
    }

    /// A segment of `count` clusters, of which the first is entered at the byte `byte`.
    private func segment(_ mapping: Segment.Mapping, clusters count: Int, _ byte: Int) -> Segment {
        // Safe: the clusters of one table, and the position is below the end of the first.
        let byteCount = UInt64(count) << UInt64(map.geometry.clusterBits) - UInt64(byte)
        return Segment(start: position, byteCount: min(byteCount, end - position), mapping: mapping)
    }

    /// Section "2.3 Standard L2 entry".
    private func standardPiece(_ index: Int, _ byte: Int) throws(QCOW2Error) -> Segment {
        let geometry = map.geometry
        let table = slice.span
        let raw: UInt64 = table.loadBigEndian(at: index)
        var next = index + 8
        if raw == 0 {
            while next < table.count, table.loadBigEndian(at: next, as: UInt64.self) == 0 { next &+= 8 }
            return segment(.unallocated, clusters: (next - index) / 8, byte)
        }
        // What a plain entry has: no bit but the offset's, which is aligned, and the copied flag.
        let oddBits = ~(L2Entry.Bits.hostOffset & ~(geometry.clusterSize - 1) | L2Entry.Bits.copied)
        let offset = raw & ~L2Entry.Bits.copied
        if offset != 0, raw & oddBits == 0, offset < map.fileByteCount {
            var expected = offset &+ geometry.clusterSize
            while next < table.count, expected < map.fileByteCount,
                table.loadBigEndian(at: next, as: UInt64.self) & ~L2Entry.Bits.copied == expected
            {
                next &+= 8
                expected &+= geometry.clusterSize
            }
            return segment(.data(HostOffset(offset + UInt64(byte))), clusters: (next - index) / 8, byte)
        }
        let entry = L2Entry(rawValue: raw)
        _ = try scan.target(of: entry, in: table, index, sliceOffset)
        switch entry.mapping(in: geometry) {
        case .unallocated: return segment(.unallocated, clusters: 1, byte)
        case .zero(let host?): return segment(.zero(HostOffset(host.rawValue + UInt64(byte))), clusters: 1, byte)
        case .zero(nil):
            while next < table.count, table.loadBigEndian(at: next, as: UInt64.self) == raw { next &+= 8 }
            return segment(.zero(nil), clusters: (next - index) / 8, byte)
        case .standard(let host): return segment(.data(HostOffset(host.rawValue + UInt64(byte))), clusters: 1, byte)
        case .compressed(let compressed): return segment(.compressed(compressed), clusters: 1, byte)
        }
    }

    /// Section "2.4 Extended L2 entry".
    private func extendedPiece(_ index: Int, _ byte: Int) throws(QCOW2Error) -> Segment {
        let geometry = map.geometry
        let table = slice.span
        let entry = L2Entry(rawValue: table.loadBigEndian(at: index))
        _ = try scan.target(of: entry, in: table, index, sliceOffset)
        if case .compressed(let compressed) = entry.mapping(in: geometry) {
            return segment(.compressed(compressed), clusters: 1, byte)
        }
        let bitmap = SubclusterBitmap(rawValue: table.loadBigEndian(at: index + 8))
        let subclusterByteCount = geometry.clusterByteCount / SubclusterBitmap.subclusterCount
        let first = byte / subclusterByteCount
        let kind = bitmap.mapping(ofSubcluster: first)
        var next = first + 1
        while next < SubclusterBitmap.subclusterCount, bitmap.mapping(ofSubcluster: next) == kind { next += 1 }
        let host = entry.ownCluster.map { HostOffset($0.rawValue + UInt64(byte)) }
        let mapping: Segment.Mapping =
            switch (kind, host) {
            case (.zero, _): .zero(host)
            case (.allocated, let host?): .data(host)
            // Allocated without a host cluster is a defect, which was refused above.
            case (.unallocated, _), (.allocated, nil): .unallocated
            }
        return segment(mapping, upTo: position + UInt64(next * subclusterByteCount - byte - 1))
    }
}
