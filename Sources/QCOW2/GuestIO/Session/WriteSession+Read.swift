// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// Where tables that are in memory are said to be, for reading: behind everything that a file can hold.
    private static let memoryStart: UInt64 = 1 << 55

    /// The offset that stands for the table below an L1 entry.
    ///
    /// Can't overflow: at most 2^22 tables of at most 2^21 bytes, so it stays below 2^56.
    fileprivate func memoryOffset(_ l1Index: UInt64) -> HostOffset {
        HostOffset(Self.memoryStart + l1Index << UInt64(geometry.clusterBits))
    }

    /// Fills `buffer` from a table in memory; false if the offset isn't one that stands for it.
    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) -> Bool {
        guard offset.rawValue >= Self.memoryStart else { return false }
        let position = offset.rawValue - Self.memoryStart
        guard let table = tables.bytes(Int(position >> UInt64(geometry.clusterBits))) else { return false }
        let start = Int(position & (geometry.clusterSize - 1))
        for index in 0..<min(buffer.count, table.count - start) { buffer[index] = table[start + index] }
        return true
    }
}

extension ClusterMap {
    /// The active state as guest writes leave it.
    init(_ session: WriteSession, for guest: Range<UInt64>) {
        geometry = session.geometry
        // What isn't in memory was checked when the session began.
        fileByteCount = ImageGeometry.hostOffsetLimit
        l1TableOffset = HostOffset(0)
        let count = UInt64(session.tables.l1.count)
        let first = min(geometry.indices(of: GuestOffset(guest.lowerBound)).l1, count)
        let last = guest.isEmpty ? first : min(geometry.indices(of: GuestOffset(guest.upperBound - 1)).l1 + 1, count)
        indices = first..<last
        entries = (first..<last).map { index in
            session.tables.bytes(Int(index)) == nil
                ? session.tables.l1[Int(index)]
                : L1Entry(l2Table: session.memoryOffset(index), isCopied: false)
        }
    }
}
