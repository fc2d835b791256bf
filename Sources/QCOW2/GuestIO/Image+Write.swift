// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Writes bytes into the active state of the disk.
    ///
    /// Clusters that a snapshot shares are copied, compressed ones decompressed, missing ones allocated. Reads of this
    /// image see the bytes at once; ``flush()`` makes them last. Until then a crash leaves every sector of 512 bytes
    /// as it was or as written, in any mixture, and never harms metadata or snapshots. An image that goes away without
    /// a flush has lost what was written into clusters that it didn't have before.
    ///
    /// The first write counts all references, as ``createSnapshot(named:date:options:)`` does. From then on each costs
    /// its own bytes, the rest of a cluster that is copied, and now and then a commit when
    /// ``GuestWriteOptions/cacheBudget`` is used up.
    ///
    /// - Parameters:
    ///   - bytes: What to write.
    ///   - offset: Where in the disk; any byte.
    /// - Throws: ``QCOW2Error`` with the code `outsideDisk`; `backingFileNotAllowed` for a part of a cluster that the backing
    ///   file holds; `unsupported` for encrypted data or an external data file; `limitExceeded`, `activeBitmaps`,
    ///   `readOnly`, `needsRepair`, `corrupt`, or `inputOutput`, after which some of the bytes may have been written.
    public mutating func write(_ bytes: Span<UInt8>, at offset: GuestOffset) throws(QCOW2Error) {
        let end = try checkRange(offset, UInt64(bytes.count))
        guard end > offset.rawValue else { return }
        var session = try takeSession()
        defer { self.session = session.isLost ? nil : session }
        for (cluster, range) in GuestClusters(header.geometry, offset.rawValue, end).ends {
            try session.checkBacking(cluster, range, from: storage)
        }
        var done = 0
        for (cluster, range) in GuestClusters(header.geometry, offset.rawValue, end) {
            let piece = bytes.extracting(done..<(done + range.count))
            try session.store(piece, to: cluster, from: range.lowerBound, in: &storage)
            done += range.count
            try commitIfLarge(&session)
        }
    }

    /// Writes bytes into the active state of the disk.
    ///
    /// As ``write(_:at:)-(Span<UInt8>,_)``.
    ///
    /// - Parameters:
    ///   - bytes: What to write.
    ///   - offset: Where in the disk; any byte.
    /// - Throws: What the other `write` throws.
    public mutating func write(_ bytes: [UInt8], at offset: GuestOffset) throws(QCOW2Error) {
        try write(bytes.span, at: offset)
    }

    /// Makes a range of the active state read as zeros.
    ///
    /// Whole clusters (subclusters with extended L2 entries) become zero clusters and give their space back; version 2
    /// has none, so there they become unallocated or, over a backing file, are written. Else as ``write(_:at:)-([UInt8],_)``.
    ///
    /// - Parameters:
    ///   - offset: Where in the disk; any byte.
    ///   - byteCount: How many bytes.
    /// - Throws: What `write` throws.
    public mutating func writeZeros(at offset: GuestOffset, count byteCount: UInt64) throws(QCOW2Error) {
        try zero(offset, byteCount, .always)
    }

    /// Says that the guest no longer needs what a range of the active state holds.
    ///
    /// Whole clusters (subclusters with extended L2 entries) read as zeros afterwards and give their space back. What
    /// they cover only in part, and in version 2 over a backing file all of it, stays as it is: nothing that the guest
    /// had written over ever comes back. Else as ``write(_:at:)-([UInt8],_)``.
    ///
    /// - Parameters:
    ///   - offset: Where in the disk; any byte.
    ///   - byteCount: How many bytes.
    /// - Throws: What `write` throws.
    public mutating func discard(at offset: GuestOffset, count byteCount: UInt64) throws(QCOW2Error) {
        try zero(offset, byteCount, .whereFree)
    }

    /// Makes everything written so far last.
    ///
    /// One commit with two flushes if clusters were allocated or freed, and one flush if bytes were only replaced in
    /// place. A crash while it runs leaves the metadata before it or after it, whole, and nothing leaks. Writes every
    /// L2 table and refcount block that changed, and the whole L1 and refcount tables. The snapshot verbs and
    /// ``resize(to:allowingDataLoss:bitmaps:backingSize:options:)`` do it by themselves.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` or ``QCOW2Error/Code/limitExceeded``. If the storage's own flush
    ///   failed, what was written since the last flush is lost, in part or whole; the image is sound and goes on with
    ///   what was flushed before. Otherwise nothing is lost, and it can be tried again.
    public mutating func flush() throws(QCOW2Error) {
        guard var session = session.take() else { return }
        defer { self.session = session.isLost ? nil : session }
        try commit(&session)
    }

    /// Whether something was written that ``flush()`` has yet to make last.
    public var hasUnflushedWrites: Bool {
        guard let session else { return false }
        return session.hasChanges || session.hasUnflushedData
    }

    private mutating func zero(
        _ offset: GuestOffset, _ byteCount: UInt64, _ zeroing: WriteSession.Zeroing
    ) throws(QCOW2Error) {
        let end = try checkRange(offset, byteCount)
        guard end > offset.rawValue else { return }
        var session = try takeSession()
        defer { self.session = session.isLost ? nil : session }
        if zeroing == .always {
            for (cluster, range) in GuestClusters(header.geometry, offset.rawValue, end).ends {
                try session.checkBacking(cluster, range, from: storage)
            }
        }
        var clusters = GuestClusters(header.geometry, offset.rawValue, end)
        while let (cluster, range) = clusters.next() {
            let l1Index = session.place(of: cluster).l1
            if !session.tables.hasTable(l1Index), !session.backing.exists {
                clusters.skip(toL1Index: l1Index + 1)
                continue
            }
            try session.zero(cluster, range, zeroing, in: &storage)
            try commitIfLarge(&session)
        }
    }

    /// The end of a range that must lie inside the disk.
    private func checkRange(_ offset: GuestOffset, _ byteCount: UInt64) throws(QCOW2Error) -> UInt64 {
        let size = header.size & ~(ImageGeometry.sectorSize - 1)
        let (end, overflow) = offset.rawValue.addingReportingOverflow(byteCount)
        guard !overflow, end <= size else {
            throw QCOW2Error(
                .outsideDisk, "\(byteCount) bytes at guest offset \(offset) reach past the disk's end at \(size).")
        }
        return end
    }

    private mutating func commitIfLarge(_ session: inout WriteSession) throws(QCOW2Error) {
        let budget = guestWriteOptions.cacheBudget
        if session.dirtyByteCount > budget / 2 { try commit(&session) }
        session.trim(to: budget / 2)
    }
}

/// The guest clusters of a range, one after the other, each with the part of it that the range covers.
struct GuestClusters: Sequence, IteratorProtocol {
    private let geometry: ImageGeometry
    private var position: UInt64
    private let end: UInt64

    init(_ geometry: ImageGeometry, _ start: UInt64, _ end: UInt64) {
        self.geometry = geometry
        position = start
        self.end = end
    }

    mutating func next() -> (cluster: UInt64, range: Range<Int>)? {
        guard position < end else { return nil }
        let start = position & (geometry.clusterSize - 1)
        let count = Swift.min(geometry.clusterSize - start, end - position)
        let cluster = position >> UInt64(geometry.clusterBits)
        position += count
        return (cluster, Int(start)..<Int(start + count))
    }

    /// Goes on with the first cluster below an L1 entry.
    mutating func skip(toL1Index index: Int) {
        position = Swift.max(position, geometry.guestOffset(ofL1Index: UInt64(index)))
    }

    /// The first and the last, which alone may be covered in part.
    var ends: [(cluster: UInt64, range: Range<Int>)] {
        var first = self
        var last = self
        last.position = Swift.max(position, (end - 1) & ~(geometry.clusterSize - 1))
        return [first.next(), last.next()].compactMap(\.self)
    }
}
