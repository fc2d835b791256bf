// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One record behind the header.
///
/// Section "1.4 Header extensions".
struct HeaderExtension: Hashable, Sendable {
    /// The record's type; unknown ones are kept.
    struct Kind: RawRepresentable, Hashable, Sendable {
        let rawValue: UInt32
        init(rawValue: UInt32) { self.rawValue = rawValue }

        static let end = Kind(rawValue: 0)
        static let backingFileFormat = Kind(rawValue: 0xE279_2ACA)
        static let featureNames = Kind(rawValue: 0x6803_F857)
        static let bitmaps = Kind(rawValue: 0x2385_2875)
        static let encryption = Kind(rawValue: 0x0537_BE77)
        static let externalDataFileName = Kind(rawValue: 0x4441_5441)

        /// The lengths that the format, or every reader of it, allows the data of this kind to have.
        var byteCounts: ClosedRange<UInt32> {
            switch self {
            case .backingFileFormat: 0...15
            case .bitmaps: UInt32(BitmapsExtension.byteCount)...UInt32(BitmapsExtension.byteCount)
            case .encryption: UInt32(EncryptionHeader.byteCount)...UInt32(EncryptionHeader.byteCount)
            default: 0...UInt32.max
            }
        }
    }

    enum Layout {
        static let type = Field<UInt32>("extension type", at: 0)
        static let length = Field<UInt32>("extension length", at: 4)
        static let byteCount = 8
    }

    let kind: Kind
    /// Where the record starts in the file.
    let offset: HostOffset
    let data: [UInt8]

    /// Decodes the records in the first cluster of an image.
    ///
    /// - Parameters:
    ///   - area: The first cluster up to the backing file's name, or whole without one.
    ///   - start: Where the header ends.
    /// - Returns: The records in the order of the file, without the END record.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for a record that doesn't fit or has a length that its kind can't have,
    ///   stray bytes where a record should be, or a second bitmaps or encryption record.
    static func decodeAll(in area: Span<UInt8>, from start: Int) throws(QCOW2Error) -> [HeaderExtension] {
        var extensions: [HeaderExtension] = []
        try decode(in: area, from: start, into: &extensions)
        return extensions
    }

    /// Decodes records until one can't be; those in front of it are in `extensions` then.
    static func decode(
        in area: Span<UInt8>, from start: Int, into extensions: inout [HeaderExtension]
    ) throws(QCOW2Error) {
        var position = start
        while position < area.count {
            let offset = HostOffset(UInt64(position))
            let remaining = area.count - position
            guard remaining >= Layout.byteCount else {
                throw .invalid("header extension", "\(remaining) stray bytes follow the last one", at: offset)
            }
            let header = area.extracting(position..<(position + Layout.byteCount))
            let kind = Kind(rawValue: Layout.type.load(from: header))
            // The length is checked against the area before anything is allocated for it.
            let length = Layout.length.load(from: header)
            guard length <= remaining - Layout.byteCount else {
                throw .invalid(
                    "header extension length", "\(length) bytes don't fit into the header's cluster", at: offset)
            }
            if kind == .end { break }
            guard kind.byteCounts.contains(length) else {
                throw .outOfRange("header extension length", length, kind.byteCounts, at: offset)
            }
            if kind == .bitmaps || kind == .encryption, extensions.contains(where: { $0.kind == kind }) {
                throw .invalid(
                    "header extension type", "0x\(String(kind.rawValue, radix: 16)) appears twice", at: offset)
            }
            var data: [UInt8] = []
            data.reserveCapacity(Int(length))
            for index in 0..<Int(length) { data.append(area[position + Layout.byteCount + index]) }
            extensions.append(HeaderExtension(kind: kind, offset: offset, data: data))
            position += Layout.byteCount + (Int(length) + 7) / 8 * 8
        }
    }
}

extension [HeaderExtension] {
    /// The record of a kind that other implementations use: the last one.
    func last(_ kind: HeaderExtension.Kind) -> HeaderExtension? { last { $0.kind == kind } }

    /// The name that the image itself gives to an incompatible feature bit, if any.
    ///
    /// Section "1.5 Feature name table".
    func incompatibleFeatureName(bit: UInt8) -> String? {
        guard let names = last(.featureNames)?.data else { return nil }
        let entryByteCount = 48
        for start in stride(from: 0, through: names.count - entryByteCount, by: entryByteCount) {
            guard names[start] == 0, names[start + 1] == bit else { continue }
            let name = names[(start + 2)..<(start + entryByteCount)].prefix { $0 != 0 }
            return String(decoding: name, as: UTF8.self)
        }
        return nil
    }
}

/// Where the key material of a LUKS image is.
///
/// Section "5.2 Encryption".
struct EncryptionHeader: Hashable, Sendable {
    static let byteCount = 16
    let region: HostOffset
    let regionByteCount: UInt64

    enum Layout {
        static let offset = Field<UInt64>("encryption header offset", at: 0)
        static let length = Field<UInt64>("encryption header length", at: 8)
    }

    init(decoding record: HeaderExtension, in geometry: ImageGeometry) throws(QCOW2Error) {
        guard record.data.count == Self.byteCount else {
            throw .invalid(
                "encryption extension", "it has \(record.data.count) bytes instead of \(Self.byteCount)",
                at: record.offset)
        }
        region = HostOffset(Layout.offset.load(from: record.data.span))
        regionByteCount = Layout.length.load(from: record.data.span)
        guard geometry.isAligned(region), region.rawValue != 0 else {
            throw .misaligned(Layout.offset.name, region, at: record.offset)
        }
    }

    /// Checks that the region is as long as the LUKS header in it says.
    ///
    /// Invariant I-5. The key material fills the region up to where the payload would start in a file of its own. If
    /// the two disagree, one of them is damaged, and it isn't known which clusters hold keys.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt``.
    func check(_ luks: LUKSHeader, from record: HeaderExtension) throws(QCOW2Error) {
        let end = luks.slots.reduce(luks.payloadOffset) { $1.isActive ? max($0, $1.end(luks)) : $0 }
        guard regionByteCount != luks.payloadOffset || end > regionByteCount else { return }
        throw .invalid(
            Layout.length.name,
            "\(regionByteCount) bytes, but the LUKS header says that keys and payload offset reach to \(end)",
            at: record.offset)
    }
}
