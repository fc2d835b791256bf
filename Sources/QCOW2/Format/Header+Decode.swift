// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Header {
    /// Decodes the header at the start of an image, and refuses every value that the specification forbids.
    ///
    /// Checks what the header alone can say; whether a table lies inside the file is checked when opening. An unknown
    /// feature is no error here, so that its name can be looked up before refusing it.
    ///
    /// - Parameter bytes: The first bytes of the image file; more than the header is fine.
    /// - Throws: What ``init(decodingFields:)`` throws, and ``QCOW2Error/Code/corrupt`` for a field that contradicts
    ///   the others.
    init(decoding bytes: Span<UInt8>) throws(QCOW2Error) {
        try self.init(decodingFields: bytes)
        for check in Check.allCases { try perform(check) }
    }

    /// Decodes the header at the start of an image, and refuses only what makes the rest meaningless.
    ///
    /// - Parameter bytes: The first bytes of the image file; more than the header is fine.
    /// - Throws: ``QCOW2Error/Code/notQCOW2`` without the magic number; ``QCOW2Error/Code/unsupported`` for an unknown
    ///   version; ``QCOW2Error/Code/corrupt`` for a header that is cut off, or sizes that can't be.
    init(decodingFields bytes: Span<UInt8>) throws(QCOW2Error) {
        let fields = HeaderFields([UInt8](copying: bytes, 0..<bytes.count))
        for rule in HeaderFields.Rule.allCases { try fields.check(rule) }
        guard let header = fields.header else { throw .notQCOW2() }
        self = header
    }

    /// The checks of single fields against the rest of the header, in the order in which they are made.
    enum Check: CaseIterable {
        case size, l1EntryCount, refcountTableClusterCount, snapshotCount
        case l1TableOffset, refcountTableOffset, snapshotTableOffset, backingFileName
    }

    func perform(_ check: Check) throws(QCOW2Error) {
        switch check {
        case .size: try checkSize()
        case .l1EntryCount: try checkL1EntryCount()
        case .refcountTableClusterCount: try checkRefcountTableClusterCount()
        case .snapshotCount: try checkSnapshotCount()
        case .l1TableOffset: try checkTable(Layout.l1TableOffset, l1TableOffset, isUsed: l1EntryCount > 0)
        case .refcountTableOffset: try checkTable(Layout.refcountTableOffset, refcountTableOffset, isUsed: true)
        case .snapshotTableOffset:
            try checkTable(Layout.snapshotsOffset, snapshotTableOffset, isUsed: snapshotCount > 0)
        case .backingFileName: try checkBackingFileName()
        }
    }

    /// The L1 entries that the disk needs.
    private var neededL1EntryCount: UInt64 { geometry.l1EntryCount(forDiskSize: size) }

    private func checkSize() throws(QCOW2Error) {
        guard size < 1 << 63 else { throw .outOfRange(Layout.size, size, 0...(1 << 63 - 1)) }
        guard neededL1EntryCount <= ImageGeometry.maximumL1EntryCount else {
            throw .invalid(Layout.size, "\(size) bytes need more L1 entries than the format's readers allow")
        }
    }

    private func checkL1EntryCount() throws(QCOW2Error) {
        let needed = min(neededL1EntryCount, ImageGeometry.maximumL1EntryCount)
        let counts = UInt32(needed)...UInt32(ImageGeometry.maximumL1EntryCount)
        guard counts.contains(l1EntryCount) else { throw .outOfRange(Layout.l1Size, l1EntryCount, counts) }
    }

    private func checkRefcountTableClusterCount() throws(QCOW2Error) {
        let tableClusters = 1...UInt32(ImageGeometry.maximumRefcountTableByteCount >> UInt64(clusterBits))
        guard tableClusters.contains(refcountTableClusterCount) else {
            throw .outOfRange(Layout.refcountTableClusters, refcountTableClusterCount, tableClusters)
        }
    }

    private func checkSnapshotCount() throws(QCOW2Error) {
        guard snapshotCount <= Self.maximumSnapshotCount else {
            throw .outOfRange(Layout.snapshotCount, snapshotCount, 0...Self.maximumSnapshotCount)
        }
    }

    private func checkBackingFileName() throws(QCOW2Error) {
        guard backingFileOffset.rawValue != 0 else { return }
        guard backingFileNameByteCount <= Self.maximumBackingFileNameByteCount else {
            throw .outOfRange(
                Layout.backingFileSize, backingFileNameByteCount, 0...Self.maximumBackingFileNameByteCount)
        }
        guard backingFileOffset.rawValue >= UInt64(headerByteCount),
            backingFileOffset.rawValue <= geometry.clusterSize,
            backingFileOffset.rawValue + UInt64(backingFileNameByteCount) <= geometry.clusterSize
        else {
            throw .invalid(
                Layout.backingFileOffset,
                "\(backingFileOffset) is not between the header's end and the end of the first cluster")
        }
    }

    private func checkTable(_ field: Field<UInt64>, _ offset: HostOffset, isUsed: Bool) throws(QCOW2Error) {
        guard geometry.isAligned(offset) else {
            throw .misaligned(field.name, offset, at: HostOffset(UInt64(field.offset)))
        }
        guard isUsed else { return }
        guard offset.rawValue != 0 else { throw .invalid(field, "the table would lie in the header's cluster") }
        guard offset.rawValue < 1 << 63 else { throw .invalid(field, "\(offset) is larger than any file") }
    }
}

/// What the header says about features: checked once the extensions are read, which may name them.
extension Header {
    /// Refuses features that aren't known.
    func checkKnownFeatures(_ extensions: [HeaderExtension]) throws(QCOW2Error) {
        let unknown = incompatibleFeatures.subtracting(.known).rawValue
        guard unknown != 0 else { return }
        let names = (UInt8(0)..<64).filter { unknown >> UInt64($0) & 1 == 1 }.map { bit in
            extensions.incompatibleFeatureName(bit: bit).map { "'\(escaped($0.utf8))'" } ?? "bit \(bit)"
        }
        throw QCOW2Error(
            .unsupported, "The image uses unknown incompatible features: \(names.joined(separator: ", ")).",
            at: HostOffset(UInt64(Layout.incompatibleFeatures.offset)))
    }

    /// Refuses a compression type that isn't known.
    func checkCompressionType() throws(QCOW2Error) {
        guard compressionType == nil else { return }
        throw QCOW2Error(
            .unsupported, "The image uses the unknown compression type \(rawCompressionType).",
            at: HostOffset(UInt64(Layout.compressionType.offset)))
    }

    /// Refuses a compression type that its feature bit contradicts.
    func checkCompressionFeature() throws(QCOW2Error) {
        guard incompatibleFeatures.contains(.compressionType) != (rawCompressionType != 0) else { return }
        throw .invalid(Layout.compressionType, "it contradicts the compression type feature bit")
    }
}
