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

        /// The name that the format gives to the type.
        var name: String? {
            switch self {
            case .backingFileFormat: "backing file format"
            case .featureNames: "feature name table"
            case .bitmaps: "bitmaps"
            case .encryption: "full disk encryption header"
            case .externalDataFileName: "external data file name"
            default: nil
            }
        }

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
        _ = try decode(in: area, from: start, into: &extensions) { (error) throws(QCOW2Error) in throw error }
        return extensions
    }

    /// Decodes records; those that can be used are in `extensions` then.
    ///
    /// - Parameters:
    ///   - area: The first cluster up to the backing file's name, or whole without one.
    ///   - start: Where the header ends.
    ///   - extensions: Gets the records, without the END record.
    ///   - note: Called with what is wrong with a record. Where it returns, the record is passed over; one whose end isn't
    ///     known is the last.
    /// - Returns: What was found, usable or not.
    /// - Throws: What `note` throws.
    static func decode(
        in area: Span<UInt8>, from start: Int, into extensions: inout [HeaderExtension],
        note: (QCOW2Error) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> HeaderExtensionArea {
        var found = HeaderExtensionArea(end: start)
        while found.end < area.count {
            let record: HeaderExtensionRecord
            do throws(QCOW2Error) {
                record = try HeaderExtensionRecord(at: found.end, in: area)
                if record.kind != .end || record.claimedByteCount > record.data.count { found.records.append(record) }
                // The length is checked against the area before anything is allocated for it.
                try record.checkLength()
            } catch {
                // What can't be told apart belongs to the records.
                found.end = area.count
                try note(error)
                break
            }
            if record.kind == .end {
                found.end = record.data.lowerBound
                break
            }
            found.end = min(record.end, area.count)
            do throws(QCOW2Error) {
                try record.checkKind()
                let kind = record.kind
                if kind == .bitmaps || kind == .encryption, extensions.contains(where: { $0.kind == kind }) {
                    throw .invalid(
                        "header extension type", "0x\(String(kind.rawValue, radix: 16)) appears twice",
                        at: record.offset)
                }
                extensions.append(
                    HeaderExtension(kind: kind, offset: record.offset, data: [UInt8](copying: area, record.data)))
            } catch { try note(error) }
        }
        return found
    }
}

/// The part of an image's first cluster that its extensions take.
struct HeaderExtensionArea: Sendable {
    /// The records, whatever they claim, in the order of the file; without the END record.
    var records: [HeaderExtensionRecord] = []
    /// Where they end in the first cluster, END record included.
    var end: Int
}

/// A record behind the header as it is found, whatever it claims.
struct HeaderExtensionRecord: Hashable, Sendable {
    let kind: HeaderExtension.Kind
    let offset: HostOffset
    let claimedByteCount: UInt32
    /// Where the data is in the area; cut off at the area's end.
    let data: Range<Int>

    /// The record at a position of the area.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` when the area ends inside its first eight bytes.
    init(at position: Int, in area: Span<UInt8>) throws(QCOW2Error) {
        offset = HostOffset(UInt64(position))
        let remaining = area.count - position
        guard remaining >= HeaderExtension.Layout.byteCount else {
            throw .invalid("header extension", "\(remaining) stray bytes follow the last one", at: offset)
        }
        let bytes = area.extracting(position..<area.count)
        kind = HeaderExtension.Kind(rawValue: HeaderExtension.Layout.type.load(from: bytes))
        claimedByteCount = HeaderExtension.Layout.length.load(from: bytes)
        let start = position + HeaderExtension.Layout.byteCount
        data = start..<(start + min(Int(claimedByteCount), area.count - start))
    }

    /// Where the next record is, if the data isn't cut off.
    var end: Int { data.lowerBound + (data.count + 7) / 8 * 8 }

    /// Refuses a record whose data doesn't fit into the area.
    func checkLength() throws(QCOW2Error) {
        guard data.count < Int(claimedByteCount) else { return }
        throw .invalid(
            "header extension length", "\(claimedByteCount) bytes don't fit into the header's cluster", at: offset)
    }

    /// Refuses a record with a length that its kind can't have.
    func checkKind() throws(QCOW2Error) {
        guard !kind.byteCounts.contains(claimedByteCount) else { return }
        throw .outOfRange("header extension length", claimedByteCount, kind.byteCounts, at: offset)
    }
}

extension [HeaderExtension] {
    /// The record of a kind that other implementations use: the last one.
    func last(_ kind: HeaderExtension.Kind) -> HeaderExtension? { last { $0.kind == kind } }

    /// The name that the image itself gives to an incompatible feature bit, if any.
    ///
    /// Section "1.5 Feature name table".
    func incompatibleFeatureName(bit: UInt8) -> String? {
        last(.featureNames).flatMap { FeatureNameTable(decoding: $0.data)[kind: 0, bit: bit] }
    }
}

/// The names that an image gives to feature bits.
///
/// Section "1.5 Feature name table".
struct FeatureNameTable: Hashable, Sendable {
    private struct Key: Hashable {
        let kind: UInt8
        let bit: UInt8
    }

    private static let entryByteCount = 48
    private var names: [Key: String] = [:]

    /// Decodes whole entries; of several for one bit, the first.
    init(decoding data: [UInt8]) {
        for start in stride(from: 0, through: data.count - Self.entryByteCount, by: Self.entryByteCount) {
            let key = Key(kind: data[start], bit: data[start + 1])
            let name = data[(start + 2)..<(start + Self.entryByteCount)].prefix { $0 != 0 }
            if names[key] == nil { names[key] = String(decoding: name, as: UTF8.self) }
        }
    }

    /// The name of a bit; the kinds are 0 for incompatible, 1 for compatible and 2 for autoclear features.
    subscript(kind kind: UInt8, bit bit: UInt8) -> String? { names[Key(kind: kind, bit: bit)] }
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
