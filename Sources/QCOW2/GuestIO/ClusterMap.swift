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
    /// The indices of the entries that may be asked for; what lies outside counts as unallocated.
    let indices: Range<UInt64>
    /// These entries of the L1 table, checked when they are followed; `nil` when they are read as they are needed, so
    /// that any number of states costs no more memory than what is looked at.
    let entries: [L1Entry]?

    /// The most bytes of an L2 table that are read at once: enough entries to make reading worthwhile, and little
    /// enough that one lookup in a large image doesn't read megabytes.
    static let sliceByteCount = 16384

    /// A map that holds nothing, and whose reader gets the L1 table in slices.
    init(_ tree: StateTree, in geometry: ImageGeometry, fileByteCount: UInt64) {
        self.geometry = geometry
        self.fileByteCount = fileByteCount
        l1TableOffset = tree.l1TableOffset
        indices = 0..<UInt64(tree.l1EntryCount)
        entries = nil
    }

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
        indices = first..<last
        // Safe: at most 4,194,304 entries, as decoding has checked, and all of them in the file.
        var bytes = [UInt8](repeating: 0, count: Int(last - first) * L1Entry.byteCount)
        var span = bytes.mutableSpan
        try read(&span, tree.l1TableOffset.saturating(adding: first * UInt64(L1Entry.byteCount)))
        entries = L1Entry.decodeTable(bytes.span)
    }

    /// Guest bytes below one L1 entry: at most 2^39.
    var l1EntrySpan: UInt64 { geometry.clusterSize * UInt64(geometry.l2EntryCount) }

    /// The most bytes of any table that are read at once.
    var sliceByteCount: Int { min(geometry.clusterByteCount, Self.sliceByteCount) }

    /// The L2 table of an entry with an index in the whole table; `nil` for one that says "unallocated".
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt``.
    func l2Table(of entry: L1Entry, _ index: UInt64) throws(QCOW2Error) -> HostOffset? {
        guard entry.rawValue != 0 else { return nil }
        try entry.check(Int(index), at: place(of: index), geometry, FileBounds(byteCount: fileByteCount))
        return entry.l2Table
    }

    /// Where an entry is.
    func place(of index: UInt64) -> HostOffset {
        l1TableOffset.saturating(adding: index * UInt64(L1Entry.byteCount))
    }
}
