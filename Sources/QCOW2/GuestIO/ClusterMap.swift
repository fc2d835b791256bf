// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads bytes of a file into a buffer; bytes past the end are zeros.
typealias FileRead = (_ buffer: inout MutableSpan<UInt8>, _ offset: HostOffset) throws(QCOW2Error) -> Void

/// Hands out a part of an L2 table.
typealias SliceLoad = (_ offset: HostOffset, _ byteCount: Int) throws(QCOW2Error) -> [UInt8]

/// Finds the segments of one state: an L1 table, and what is needed to follow it.
///
/// Sections "2.1" to "2.5".
struct ClusterMap: Sendable {
    let geometry: ImageGeometry
    /// The file's length: nothing may lie behind it.
    let fileByteCount: UInt64
    let l1TableOffset: HostOffset
    /// The index of the first entry held.
    let firstIndex: UInt64
    /// Entries of the L1 table, checked when they are followed; what lies outside counts as unallocated.
    let entries: [L1Entry]

    /// The most bytes of an L2 table that are read at once: enough entries to make reading worthwhile, and little
    /// enough that one lookup in a large image doesn't read megabytes.
    static let sliceByteCount = 16384

    /// Reads those entries of an L1 table that a guest range needs.
    init(
        _ tree: StateTree, for guest: Range<UInt64>, in geometry: ImageGeometry, fileByteCount: UInt64, read: FileRead
    ) throws(QCOW2Error) {
        self.geometry = geometry
        self.fileByteCount = fileByteCount
        l1TableOffset = tree.l1TableOffset
        let count = UInt64(tree.l1EntryCount)
        let first = min(geometry.indices(of: GuestOffset(guest.lowerBound)).l1, count)
        let last = guest.isEmpty ? first : min(geometry.indices(of: GuestOffset(guest.upperBound - 1)).l1 + 1, count)
        firstIndex = first
        // Safe: at most 4,194,304 entries, as decoding has checked, and all of them in the file.
        var bytes = [UInt8](repeating: 0, count: Int(last - first) * L1Entry.byteCount)
        var span = bytes.mutableSpan
        try read(&span, tree.l1TableOffset.saturating(adding: first * UInt64(L1Entry.byteCount)))
        entries = L1Entry.decodeTable(bytes.span)
    }

    /// Guest bytes below one L1 entry: at most 2^39.
    var l1EntrySpan: UInt64 { geometry.clusterSize * UInt64(geometry.l2EntryCount) }

    /// The entry with an index in the whole table; `nil` for one that isn't there or says "unallocated".
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt``.
    func l2Table(at index: UInt64) throws(QCOW2Error) -> HostOffset? {
        guard index >= firstIndex, index - firstIndex < UInt64(entries.count) else { return nil }
        let entry = entries[Int(index - firstIndex)]
        guard entry.rawValue != 0 else { return nil }
        let place = l1TableOffset.saturating(adding: index * UInt64(L1Entry.byteCount))
        try entry.check(Int(index), at: place, geometry, FileBounds(byteCount: fileByteCount))
        return entry.l2Table
    }

    /// Whether the table has entries from an index on.
    func hasEntries(from index: UInt64) -> Bool { index < firstIndex + UInt64(entries.count) }
}
