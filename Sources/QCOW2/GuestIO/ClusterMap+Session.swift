// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

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
