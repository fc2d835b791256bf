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
        guard bytes.count >= 8, Layout.magic.load(from: bytes) == Self.magic else { throw .notQCOW2() }
        version = Layout.version.load(from: bytes)
        guard version == 2 || version == 3 else {
            throw QCOW2Error(
                .unsupported, "The image has qcow version \(version); only 2 and 3 are supported.",
                at: HostOffset(UInt64(Layout.version.offset)))
        }
        let minimum = version == 2 ? Layout.version2ByteCount : Layout.version3ByteCount
        guard bytes.count >= minimum else {
            throw .truncated("header", needed: minimum, have: bytes.count, at: HostOffset(0))
        }
        clusterBits = Layout.clusterBits.load(from: bytes)
        guard ImageGeometry.clusterBitsRange.contains(clusterBits) else {
            throw .outOfRange(Layout.clusterBits, clusterBits, ImageGeometry.clusterBitsRange)
        }
        backingFileOffset = HostOffset(Layout.backingFileOffset.load(from: bytes))
        backingFileNameByteCount = Layout.backingFileSize.load(from: bytes)
        size = Layout.size.load(from: bytes)
        l1EntryCount = Layout.l1Size.load(from: bytes)
        l1TableOffset = HostOffset(Layout.l1TableOffset.load(from: bytes))
        refcountTableOffset = HostOffset(Layout.refcountTableOffset.load(from: bytes))
        refcountTableClusterCount = Layout.refcountTableClusters.load(from: bytes)
        snapshotCount = Layout.snapshotCount.load(from: bytes)
        snapshotTableOffset = HostOffset(Layout.snapshotsOffset.load(from: bytes))
        let cryptMethod = Layout.cryptMethod.load(from: bytes)
        guard let encryption = EncryptionMethod(rawValue: cryptMethod) else {
            throw .outOfRange(Layout.cryptMethod, cryptMethod, 0...2)
        }
        self.encryption = encryption

        if version == 2 {
            incompatibleFeatures = []
            compatibleFeatures = []
            autoclearFeatures = []
            refcountOrder = 4
            headerByteCount = UInt32(Layout.version2ByteCount)
            rawCompressionType = 0
        } else {
            incompatibleFeatures = IncompatibleFeatures(rawValue: Layout.incompatibleFeatures.load(from: bytes))
            compatibleFeatures = CompatibleFeatures(rawValue: Layout.compatibleFeatures.load(from: bytes))
            autoclearFeatures = AutoclearFeatures(rawValue: Layout.autoclearFeatures.load(from: bytes))
            refcountOrder = Layout.refcountOrder.load(from: bytes)
            guard refcountOrder <= 6 else { throw .outOfRange(Layout.refcountOrder, refcountOrder, 0...6) }
            headerByteCount = Layout.headerLength.load(from: bytes)
            let lengths = UInt32(Layout.version3ByteCount)...(1 << clusterBits)
            guard lengths.contains(headerByteCount) else {
                throw .outOfRange(Layout.headerLength, headerByteCount, lengths)
            }
            guard bytes.count >= Int(headerByteCount) else {
                throw .truncated("header", needed: Int(headerByteCount), have: bytes.count, at: HostOffset(0))
            }
            let hasCompressionType = Int(headerByteCount) >= Layout.compressionType.end
            rawCompressionType = hasCompressionType ? Layout.compressionType.load(from: bytes) : 0
        }
        if incompatibleFeatures.contains(.extendedL2), clusterBits < 14 {
            throw .outOfRange(Layout.clusterBits, clusterBits, 14...ImageGeometry.clusterBitsRange.upperBound)
        }
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

extension Header {
    /// Refuses features that aren't known, or that contradict each other so that no cluster could be read.
    func checkKnownFeatures(_ extensions: [HeaderExtension]) throws(QCOW2Error) {
        let place = HostOffset(UInt64(Header.Layout.incompatibleFeatures.offset))
        let unknown = incompatibleFeatures.subtracting(.known).rawValue
        if unknown != 0 {
            let names = (UInt8(0)..<64).filter { unknown >> UInt64($0) & 1 == 1 }.map { bit in
                extensions.incompatibleFeatureName(bit: bit).map { "'\(escaped($0.utf8))'" } ?? "bit \(bit)"
            }
            throw QCOW2Error(
                .unsupported, "The image uses unknown incompatible features: \(names.joined(separator: ", ")).",
                at: place)
        }
        guard compressionType != nil else {
            throw QCOW2Error(
                .unsupported, "The image uses the unknown compression type \(rawCompressionType).",
                at: HostOffset(UInt64(Header.Layout.compressionType.offset)))
        }
        if incompatibleFeatures.contains(.compressionType) != (compressionType != .deflate) {
            throw .invalid(
                Header.Layout.compressionType.name, "it contradicts the compression type feature bit",
                at: HostOffset(UInt64(Header.Layout.compressionType.offset)))
        }
    }
}

extension QCOW2Error {
    fileprivate static func invalid<T>(_ field: Field<T>, _ why: String) -> Self {
        invalid(field.name, why, at: HostOffset(UInt64(field.offset)))
    }

    fileprivate static func outOfRange<T>(_ field: Field<T>, _ value: T, _ range: ClosedRange<T>) -> Self {
        outOfRange(field.name, value, range, at: HostOffset(UInt64(field.offset)))
    }
}
