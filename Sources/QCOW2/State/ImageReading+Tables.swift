// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The tables that the head points to.
extension ImageReading {
    /// Invariants I-5 and I-6.
    mutating func findBitmaps<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard header.autoclearFeatures.contains(.bitmaps) else { return }
        guard let record = extensions.last(.bitmaps) else {
            sink.add(
                .bitmapsMissing, at: Header.Layout.autoclearFeatures.place, in: "header",
                "The header promises bitmaps, but has no bitmaps extension.")
            return
        }
        hasTrustedBitmaps = true
        var bitmaps = MetadataTables(geometry: geometry, bounds: bounds)
        do throws(QCOW2Error) {
            try bitmaps.addBitmaps(of: header, [record], reading: storage)
        } catch  where error.code == .corrupt {
            try sink.note(.bitmapsInvalid, error, in: "bitmaps")
            isComplete = false
        }
        collected.takeBitmaps(of: bitmaps)
    }

    /// Finds the refcount table; cuts it in the header to what lies in the file.
    mutating func findRefcountTable(_ sink: FindingSink) throws(QCOW2Error) {
        let most = ImageGeometry.maximumRefcountTableByteCount >> UInt64(geometry.clusterBits)
        let byteCount = min(UInt64(header.refcountTableClusterCount), most) * geometry.clusterSize
        let wasComplete = isComplete
        let present = try addTable(
            .refcountTable, Header.Layout.refcountTableOffset.name, at: header.refcountTableOffset, byteCount,
            from: Header.Layout.refcountTableOffset.place, sink)
        // Refcounts that can't be read hide no reference.
        isComplete = wasComplete
        // A strict opening got here with a table that is as it should be.
        guard sink.tolerance != .strict else { return }
        header.refcountTableClusterCount = UInt32(geometry.clusterCount(forBytes: present ?? 0))
        if present == nil { header.refcountTableOffset = HostOffset(0) }
    }

    /// Invariants I-7 and I-19.
    mutating func readRefcountTable<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard header.refcountTableClusterCount > 0 else { return }
        refcounts = try RefcountTable(reading: header, storage, bounds) { (defect, index, error) throws(QCOW2Error) in
            let rule = defect == .listedTwice ? FindingRule.refcountBlockTwice : .refcountTableEntryInvalid
            try sink.note(rule, error, in: "refcount table", index: UInt64(index))
        }
        collected.addBlocks(of: refcounts)
    }
}
