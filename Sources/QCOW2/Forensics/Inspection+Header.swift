// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The file, the header and its features: sections 1.1 and 1.2.
extension Inspection {
    private typealias Layout = Header.Layout

    /// Reads the header and, where the cluster size is one, the whole first cluster.
    mutating func readHeader<S: Storage & ~Copyable>(from storage: borrowing S) -> LenientHeader {
        let sector = read(ImageGeometry.sectorSize, at: HostOffset(0), from: storage)
        var header = LenientHeader(sector)
        if let geometry = header.geometry, geometry.clusterSize > ImageGeometry.sectorSize {
            let cluster = read(geometry.clusterSize, at: HostOffset(0), from: storage)
            if cluster.count >= sector.count { header = LenientHeader(cluster) }
        }
        if !header.bytes.isEmpty {
            annotate("header", at: HostOffset(0), Header.annotatedFields(ofWhateverIn: header.bytes.span))
        }
        hasMagic = header.hasMagic
        return header
    }

    /// Says whether the image could be opened, which reads the header and the snapshot table once more.
    mutating func inspectOpening<S: Storage & ~Copyable>(of storage: borrowing S) {
        do throws(QCOW2Error) {
            _ = try OpenedImage(reading: storage)
        } catch {
            openingError = error
            guard error.code != .inputOutput else { return }
            if error.code == .notQCOW2 {
                report(.notQCOW2, .corruption, error.message, at: error.offset)
            } else {
                let severity: Finding.Severity = error.code == .unsupported ? .unsupported : .corruption
                report(.cannotBeOpened, severity, error.message, at: error.offset)
            }
        }
    }

    mutating func inspectHeader(_ header: LenientHeader) {
        version = header.version
        guard let version = header.version else {
            report(.headerTruncated, .corruption, "The file ends in its header, after \(header.bytes.count) bytes.")
            return
        }
        if version != 2, version != 3 {
            let reading = version < 2 ? "nothing behind the version is shown" : "the rest is read as version 3's"
            report(
                .versionUnknown, .unsupported, "The version is \(version); \(reading).",
                at: HostOffset(UInt64(Layout.version.offset)))
        }
        guard version >= 2 else { return }
        let needed = version == 2 ? Layout.version2ByteCount : Layout.version3ByteCount
        if header.bytes.count < needed {
            report(
                .headerTruncated, .corruption,
                "The file ends in its header: \(header.bytes.count) of \(needed) bytes are there.")
        }
        summarize(header)
        inspectFields(header)
        inspectFeatures(header)
        inspectRest(header)
    }

    private mutating func summarize(_ header: LenientHeader) {
        virtualSize = header.has(Layout.size) ? header[Layout.size] : nil
        clusterSize = header.geometry?.clusterByteCount
        if version == 2 {
            refcountBits = 16
        } else if header.has(Layout.refcountOrder), header[Layout.refcountOrder] <= 6 {
            refcountBits = 1 << Int(header[Layout.refcountOrder])
        }
        if header.has(Layout.cryptMethod) { encryptionMethod = UInt32(header[Layout.cryptMethod]) }
        compressionType = UInt8(truncatingIfNeeded: header[Layout.compressionType])
    }

    /// Reports values that the format forbids.
    private mutating func inspectFields(_ header: LenientHeader) {
        func complain<T>(_ field: Field<T>, _ isWrong: Bool, _ allowed: String) {
            guard header.has(field), isWrong else { return }
            report(
                .headerFieldInvalid, .corruption,
                "The field \(field.name) is \(header[field]), which isn't \(allowed).",
                at: HostOffset(UInt64(field.offset)), in: "header")
        }
        let clusterBits = header[Layout.clusterBits]
        complain(Layout.clusterBits, !(9...21).contains(clusterBits), "9 to 21")
        if header.incompatibleFeatures.contains(.extendedL2), (9...13).contains(clusterBits) {
            complain(Layout.clusterBits, true, "at least 14, as extended L2 entries need")
        }
        complain(Layout.cryptMethod, header[Layout.cryptMethod] > 2, "0 to 2")
        complain(Layout.refcountOrder, header[Layout.refcountOrder] > 6, "0 to 6")
        complain(Layout.headerLength, header.byteCount == nil, "104 to the cluster size")
        if header.byteCount != nil, header[Layout.headerLength] % 8 != 0 {
            complain(Layout.headerLength, true, "a multiple of 8")
        }
        complain(Layout.size, header[Layout.size] >= 1 << 63, "less than 2^63")
        complain(
            Layout.snapshotCount, header[Layout.snapshotCount] > UInt64(Header.maximumSnapshotCount), "at most 65536")
        let hasType = header[Layout.compressionType] != 0
        if header[Layout.compressionType] > 1 {
            report(
                .compressionTypeUnknown, .unsupported,
                "The compression type is \(header[Layout.compressionType]); only 0 and 1 are known.",
                at: HostOffset(UInt64(Layout.compressionType.offset)), in: "header")
        }
        if hasType != header.incompatibleFeatures.contains(.compressionType) {
            let isPresent = header.has(Layout.compressionType)
            complain(Layout.compressionType, true, "in accord with its feature bit")
            complain(Layout.incompatibleFeatures, !isPresent, "in accord with a header without compression_type")
        }
        complain(Layout.refcountTableClusters, header[Layout.refcountTableClusters] == 0, "at least 1")
        if let geometry = header.geometry {
            let needed = geometry.l1EntryCount(forDiskSize: header[Layout.size])
            complain(Layout.l1Size, header[Layout.l1Size] < needed, "enough for the disk, which needs \(needed)")
            let limit = ImageGeometry.maximumL1EntryCount
            complain(Layout.l1Size, header[Layout.l1Size] > limit, "at most \(limit)")
            let tableLimit = ImageGeometry.maximumRefcountTableByteCount >> UInt64(geometry.clusterBits)
            complain(
                Layout.refcountTableClusters, header[Layout.refcountTableClusters] > tableLimit,
                "at most \(tableLimit)")
        }
        if header[Layout.size] % ImageGeometry.sectorSize != 0 {
            report(
                .diskSizeOdd, "The disk has \(header[Layout.size]) bytes, not whole sectors; guests see it cut off.",
                at: HostOffset(UInt64(Layout.size.offset)), in: "header")
        }
    }

    private mutating func inspectFeatures(_ header: LenientHeader) {
        let names = header.lenientExtensions.featureNames
        for kind in FeatureBit.Kind.allCases {
            let (field, known) = kind.layout
            let word = header[field]
            for bit in 0..<64 where word >> UInt64(bit) & 1 == 1 {
                let own = known.count > bit ? known[bit] : nil
                let name = own ?? names[kind: kind.number, bit: UInt8(bit)]
                features.append(FeatureBit(kind: kind, bit: bit, name: name, isKnown: own != nil))
                guard own == nil else { continue }
                report(
                    kind.unknownCode, kind == .incompatible ? .unsupported : .notice,
                    "The \(kind.rawValue) feature bit \(bit) is unknown"
                        + (name.map { ", and called '\(escaped($0.utf8))' by the image." } ?? "."),
                    at: HostOffset(UInt64(field.offset)), in: "header", index: UInt64(bit))
            }
        }
        let place = HostOffset(UInt64(Layout.incompatibleFeatures.offset))
        let bits = header.incompatibleFeatures
        if bits.contains(.dirty) {
            report(
                .markedDirty,
                "The image is marked dirty: its last writer didn't close it, and refcounts may be wrong.", at: place)
        }
        if bits.contains(.corrupt) {
            report(
                .markedCorrupt, .corruption, "The image is marked corrupt: a writer found its metadata damaged.",
                at: place)
        }
        if bits.contains(.externalDataFile) {
            report(.externalDataFile, "The guest's data is in another file, which is not opened.", at: place)
        }
        if header[Layout.cryptMethod] != 0 {
            let method = [1: "AES", 2: "LUKS"][header[Layout.cryptMethod]] ?? "an unknown method"
            report(
                .encrypted, "The guest's data is encrypted with \(method).",
                at: HostOffset(UInt64(Layout.cryptMethod.offset)))
        }
    }

    /// Looks at the header's bytes behind the fields that have a name.
    private mutating func inspectRest(_ header: LenientHeader) {
        guard let byteCount = header.byteCount, header[Layout.version] >= 3 else { return }
        let start = Layout.compressionType.end
        let end = min(byteCount, header.bytes.count)
        guard start < end, let index = header.bytes[start..<end].firstIndex(where: { $0 != 0 }) else { return }
        report(
            .headerFieldsUnknown, "The header has bytes behind the fields that this library knows.",
            at: HostOffset(UInt64(index)), in: "header")
    }
}

extension Inspection.FeatureBit.Kind {
    /// The number in a feature name table.
    var number: UInt8 {
        switch self {
        case .incompatible: 0
        case .compatible: 1
        case .autoclear: 2
        }
    }

    fileprivate var unknownCode: Finding.Code {
        switch self {
        case .incompatible: .incompatibleFeatureUnknown
        case .compatible: .compatibleFeatureUnknown
        case .autoclear: .autoclearFeatureUnknown
        }
    }

    /// The word in the header, and the names of its bits from bit 0 on.
    fileprivate var layout: (Field<UInt64>, [String]) {
        switch self {
        case .incompatible:
            (
                Header.Layout.incompatibleFeatures,
                ["dirty bit", "corrupt bit", "external data file", "compression type", "extended L2 entries"]
            )
        case .compatible: (Header.Layout.compatibleFeatures, ["lazy refcounts"])
        case .autoclear: (Header.Layout.autoclearFeatures, ["bitmaps", "raw external data"])
        }
    }
}

extension Header {
    /// The fields that `bytes` has, in a file of any version from 2 on; of others only what names the version.
    fileprivate static func annotatedFields(ofWhateverIn bytes: Span<UInt8>) -> [AnnotatedField] {
        let isKnownLayout = bytes.count >= 8 && Layout.version.load(from: bytes) >= 2
        guard isKnownLayout else {
            return AnnotatedField.annotate(
                [Layout.magic.description, Layout.version.description], in: bytes, at: HostOffset(0))
        }
        return annotatedFields(in: bytes)
    }
}
