// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Writes a new image into an empty storage: the committer's part of creating one.
    ///
    /// - Returns: The storage.
    /// - Throws: ``QCOW2Error/Code/inputOutput`` or ``QCOW2Error/Code/readOnly``.
    static func write(_ layout: NewImageLayout, to storage: consuming S) throws(QCOW2Error) -> S {
        guard storage.isWritable else {
            throw QCOW2Error(.readOnly, "'\(storage.name)' was opened for reading only.")
        }
        guard try storage.byteCount() == 0 else {
            throw QCOW2Error(.inputOutput, "'\(storage.name)' isn't empty, so no image was created in it.")
        }
        do throws(QCOW2Error) {
            try writeTables(layout, to: &storage)
            let sectorByteCount = Int(ImageGeometry.sectorSize)
            let header = layout.headerBytes
            if header.count > sectorByteCount {
                try storage.write(
                    header.span.extracting(sectorByteCount..<header.count), at: HostOffset(UInt64(sectorByteCount)))
            }
            try storage.truncate(toByteCount: layout.fileByteCount)
            // ORDER: a file with the magic number must be a whole image.
            try storage.flush()
            try storage.write(header.span.extracting(..<sectorByteCount), at: HostOffset(0))
            try storage.flush()
        } catch {
            try? storage.truncate(toByteCount: 0)
            throw error
        }
        return storage
    }

    private static func writeTables(_ layout: NewImageLayout, to storage: inout S) throws(QCOW2Error) {
        let geometry = layout.geometry
        var writer = SequentialWriter(geometry)
        var table = [UInt8](repeating: 0, count: Int(layout.refcountTable.count) * geometry.clusterByteCount)
        var span = table.mutableSpan
        for index in 0..<layout.refcountBlocks.count {
            let entry = RefcountTableEntry(block: geometry.offset(ofCluster: layout.refcountBlocks.first + index))
            span.storeBigEndian(entry.rawValue, at: Int(index) * RefcountTableEntry.byteCount)
        }
        try writer.add(table, at: geometry.offset(ofCluster: layout.refcountTable.first), to: &storage)
        for index in 0..<layout.refcountBlocks.count {
            try writeBlock(index, layout, with: &writer, to: &storage)
        }

        let l1Entries = (0..<layout.l1EntryCount).map { index in
            layout.l2Tables.count == 0
                ? .unallocated
                : L1Entry(l2Table: geometry.offset(ofCluster: layout.l2Tables.first + index), isCopied: true)
        }
        if !l1Entries.isEmpty {
            try writer.add(
                L1Entry.encodeTable(l1Entries), at: geometry.offset(ofCluster: layout.l1Table.first), to: &storage)
        }
        for index in 0..<layout.l2Tables.count {
            let first = index * UInt64(geometry.l2EntryCount)
            let count = Int(min(UInt64(geometry.l2EntryCount), layout.data.count - min(first, layout.data.count)))
            try writer.add(
                geometry.clusterByteCount, at: geometry.offset(ofCluster: layout.l2Tables.first + index), to: &storage
            ) { (bytes: inout MutableSpan<UInt8>, _) in
                bytes.update(repeating: 0)
                for entry in 0..<count {
                    // With extended entries no subcluster is allocated yet: all of them read as zeros or show through.
                    let host = geometry.offset(ofCluster: layout.data.first + first + UInt64(entry))
                    bytes.storeBigEndian(
                        L2Entry(rawValue: host.rawValue).withCopied(true).rawValue,
                        at: entry &* geometry.l2EntryByteCount)
                }
            }
        }
        try writer.finish(&storage)
    }

    /// Writes one refcount block, piece by piece, as the block of narrow refcounts has very many.
    private static func writeBlock(
        _ index: UInt64, _ layout: NewImageLayout, with writer: inout SequentialWriter, to storage: inout S
    ) throws(QCOW2Error) {
        let geometry = layout.geometry
        let block = geometry.offset(ofCluster: layout.refcountBlocks.first + index)
        let count = min(geometry.refcountsPerBlock, UInt64(RefcountReader.pieceCount))
        for position in stride(from: 0, to: geometry.refcountsPerBlock, by: Int(count)) {
            let first = index * geometry.refcountsPerBlock + position
            let used = Int(min(count, layout.clusterCount - min(first, layout.clusterCount)))
            let values = (0..<Int(count)).map { $0 < used ? UInt64(1) : 0 }
            try writer.add(
                (Int(count) << geometry.refcountOrder) / 8,
                at: block.saturating(adding: (position << UInt64(geometry.refcountOrder)) / 8), to: &storage
            ) { (bytes: inout MutableSpan<UInt8>, _) in
                RefcountBlock.encode(
                    values, order: geometry.refcountOrder, count: values.count, into: &bytes)
            }
        }
    }
}
