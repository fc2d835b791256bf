// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The file, the header and its features: sections 1.1 and 1.2.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectHeader(_ reading: ImageReading) {
        summarize(reading.fields)
        let size = reading.header.size
        if reading.fields.has(Layout.size), size % ImageGeometry.sectorSize != 0 {
            report(
                .diskSizeOdd, "The disk has \(size) bytes, not whole sectors; guests see it cut off.",
                at: Layout.size.place, in: "header")
        }
        inspectFeatures(reading)
        inspectRest(reading.fields)
    }

    private mutating func summarize(_ header: HeaderFields) {
        virtualSize = header.has(Layout.size) ? header[Layout.size] : nil
        clusterSize = header.geometry?.clusterByteCount
        if header.version == 2 {
            refcountBits = 16
        } else if header.has(Layout.refcountOrder), header[Layout.refcountOrder] <= 6 {
            refcountBits = 1 << Int(header[Layout.refcountOrder])
        }
        if header.has(Layout.cryptMethod) { encryptionMethod = UInt32(header[Layout.cryptMethod]) }
        compressionType = UInt8(truncatingIfNeeded: header[Layout.compressionType])
    }

    /// Notes the feature bits, and what they mean for who looks at the image.
    private mutating func inspectFeatures(_ reading: ImageReading) {
        let header = reading.fields
        let names = FeatureNameTable(decoding: reading.extensions.last(.featureNames)?.data ?? [])
        for kind in FeatureBit.Kind.allCases {
            let (field, known) = kind.layout
            let word = header[field]
            for bit in 0..<64 where word >> UInt64(bit) & 1 == 1 {
                let own = known.count > bit ? known[bit] : nil
                let name = own ?? names[kind: kind.number, bit: UInt8(bit)]
                features.append(FeatureBit(kind: kind, bit: bit, name: name, isKnown: own != nil))
                // An incompatible one is what the image is refused for.
                guard own == nil, let rule = kind.unknown else { continue }
                report(
                    rule,
                    "The \(kind.rawValue) feature bit \(bit) is unknown"
                        + (name.map { ", and called '\(escaped($0.utf8))' by the image." } ?? "."),
                    at: field.place, in: "header", index: UInt64(bit))
            }
        }
        if reading.hasDataFile {
            report(
                .externalDataFile, "The guest's data is in another file, which is not opened.",
                at: Layout.incompatibleFeatures.place)
        }
        if header[Layout.cryptMethod] != 0 {
            let method = [1: "AES", 2: "LUKS"][header[Layout.cryptMethod]] ?? "an unknown method"
            report(.encrypted, "The guest's data is encrypted with \(method).", at: Layout.cryptMethod.place)
        }
    }

    /// Looks at the header's bytes behind the fields that have a name.
    private mutating func inspectRest(_ header: HeaderFields) {
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

    /// What it is to have a bit that this library doesn't know, unless that forbids to open the image.
    fileprivate var unknown: FindingRule? {
        switch self {
        case .incompatible: nil
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
    static func annotatedFields(ofWhateverIn bytes: Span<UInt8>) -> [AnnotatedField] {
        let isKnownLayout = bytes.count >= 8 && Layout.version.load(from: bytes) >= 2
        guard isKnownLayout else {
            return AnnotatedField.annotate(
                [Layout.magic.description, Layout.version.description], in: bytes, at: HostOffset(0))
        }
        return annotatedFields(in: bytes)
    }
}
