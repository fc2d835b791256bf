// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The first cluster: header, extensions, and what they say about encryption.
extension ImageReading {
    mutating func readExtensions(_ firstCluster: [UInt8], _ sink: FindingSink) throws(QCOW2Error) {
        var area = firstCluster
        var areaEnd = geometry.clusterByteCount
        let name = header.backingFileOffset.rawValue
        if name != 0, name >= UInt64(header.headerByteCount), name <= geometry.clusterSize { areaEnd = Int(name) }
        area.append(contentsOf: repeatElement(0, count: max(0, areaEnd - area.count)))
        var found: [HeaderExtension] = []
        var isComplete = true
        extensionArea = try HeaderExtension.decode(
            in: area.span.extracting(..<areaEnd), from: min(Int(header.headerByteCount), areaEnd), into: &found
        ) { (error) throws(QCOW2Error) in
            try sink.note(.extensionInvalid, error, in: "header extensions")
            // The encryption header and the bitmaps may be among those that can't be read.
            isComplete = false
        }
        if !isComplete { self.isComplete = false }
        extensions = found
        for (index, record) in found.enumerated() {
            guard found[..<index].contains(where: { $0.kind == record.kind }), record.kind.isKnown else { continue }
            sink.add(
                .extensionDuplicate, at: record.offset, in: "header extensions", index: UInt64(index),
                "The header extension 0x\(String(record.kind.rawValue, radix: 16)) appears more than once.")
        }
    }

    /// Whether the features are ones that this library knows, and agree with each other.
    func checkFeatures(_ sink: FindingSink) throws(QCOW2Error) {
        do throws(QCOW2Error) { try header.checkKnownFeatures(extensions) } catch {
            try sink.refuse(.incompatibleFeatureUnknown, error)
        }
        do throws(QCOW2Error) { try header.checkCompressionType() } catch {
            try sink.refuse(.compressionTypeUnknown, error)
        }
        do throws(QCOW2Error) { try header.checkCompressionFeature() } catch {
            try sink.refuse(.headerFieldInvalid, error)
        }
    }

    /// Invariants I-1, I-2, I-4, I-10 and I-31, as far as the header can be used without them.
    func checkHeader(_ sink: FindingSink) throws(QCOW2Error) {
        // Most of them are about clusters, and say nothing where the size of these isn't known.
        for check in Header.Check.allCases where fields.geometry != nil {
            do throws(QCOW2Error) { try header.perform(check) } catch {
                try sink.note(check.finding, error, in: "header")
            }
        }
        if header.headerByteCount % 8 != 0 {
            sink.add(
                .headerLengthOdd, at: Header.Layout.headerLength.place, in: "header",
                "The header's length of \(header.headerByteCount) bytes is no multiple of 8.")
        }
        let features = header.incompatibleFeatures
        if header.autoclearFeatures.contains(.rawExternalData),
            !features.contains(.externalDataFile) || header.backingFileOffset.rawValue != 0
        {
            sink.add(
                .featuresContradict, at: Header.Layout.autoclearFeatures.place, in: "header",
                "The header says that an external data file is a raw disk by itself, but "
                    + (features.contains(.externalDataFile) ? "there is a backing file." : "there is none."))
        }
        if features.contains(.dirty) {
            sink.add(
                .markedDirty, at: Header.Layout.incompatibleFeatures.place, in: "header",
                "The image is marked dirty: the last writer didn't close it.")
        }
        if features.contains(.corrupt) {
            sink.add(
                .markedCorrupt, at: Header.Layout.incompatibleFeatures.place, in: "header",
                "The image is marked corrupt: a writer found its metadata damaged.")
        }
    }

    mutating func findActiveTree(_ sink: FindingSink) throws(QCOW2Error) {
        let needed = geometry.l1EntryCount(forDiskSize: header.size)
        // Further entries may lie behind, and what they point to.
        if UInt64(header.l1EntryCount) < needed || header.l1EntryCount > ImageGeometry.maximumL1EntryCount {
            isComplete = false
        }
        let tree = try addTree(
            Header.Layout.l1TableOffset.name, at: header.l1TableOffset, entryCount: UInt64(header.l1EntryCount),
            from: Header.Layout.l1TableOffset.place, sink)
        if let tree { trees[0] = tree }
    }

    /// Checks that there is an encryption extension exactly where there should be one.
    mutating func checkEncryption(_ sink: FindingSink) throws(QCOW2Error) {
        guard (extensions.last(.encryption) != nil) != (header.encryption == .luks) else { return }
        try sink.note(
            .encryptionInvalid,
            .invalid(
                Header.Layout.cryptMethod.name, "it contradicts the encryption extension",
                at: Header.Layout.cryptMethod.place),
            in: "header")
        if header.encryption == .luks { isComplete = false }
    }

    /// Invariant I-5.
    mutating func findEncryptionHeader<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) throws(QCOW2Error) {
        guard let record = extensions.last(.encryption) else { return }
        do throws(QCOW2Error) {
            let encryption = try EncryptionHeader(decoding: record, in: geometry)
            let present = try addTable(
                .encryption, EncryptionHeader.Layout.offset.name, at: encryption.region, encryption.regionByteCount,
                from: record.offset, sink)
            if header.encryption == .luks, present != nil {
                try encryption.check(LUKSHeader(reading: storage, at: encryption.region), from: record)
            }
        } catch  where error.code == .corrupt {
            try sink.note(.encryptionInvalid, error, in: "header extensions")
            isComplete = false
        }
    }
}

extension HeaderExtension.Kind {
    /// Whether the format says what this kind is.
    var isKnown: Bool {
        switch self {
        case .end, .backingFileFormat, .featureNames, .bitmaps, .encryption, .externalDataFileName: true
        default: false
        }
    }
}

extension HeaderFields.Rule {
    /// What its refusal is a finding of.
    var finding: FindingRule {
        switch self {
        case .magic: .notQCOW2
        case .version: .versionUnknown
        case .length, .wholeHeader: .headerTruncated
        default: .headerFieldInvalid
        }
    }
}

extension Header.Check {
    /// What its refusal is a finding of.
    fileprivate var finding: FindingRule {
        switch self {
        case .refcountTableClusterCount, .refcountTableOffset: .refcountTableInvalid
        case .snapshotCount, .snapshotTableOffset: .snapshotTableInvalid
        default: .headerFieldInvalid
        }
    }
}

extension Field {
    /// Where the field of a header is in the file.
    var place: HostOffset { HostOffset(UInt64(offset)) }
}

extension LUKSHeader {
    /// Reads the header at the start of an encryption region.
    init<S: Storage & ~Copyable>(reading storage: borrowing S, at region: HostOffset) throws(QCOW2Error) {
        let bytes = try storage.readBytes(Self.byteCount, at: region)
        try self.init(decoding: bytes.span, at: region)
    }
}
