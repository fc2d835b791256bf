// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The records behind a header, as far as they parse.
struct LenientExtensions {
    var records: [Inspection.ExtensionRecord] = []
    /// Why and where reading stopped before an END record.
    var defect: (offset: HostOffset, why: String)?
    /// Where the records end in the first cluster, END record included.
    var end: Int

    /// More than any program writes; a cluster of 2 MiB could hold 262,144 empty ones.
    static let maximumRecordCount = 4096
}

/// A feature's bit in a feature name table.
struct FeatureNameKey: Hashable {
    let kind: UInt8
    let bit: UInt8
}

extension LenientHeader {
    /// Reads the records up to the backing file's name or the end of the first cluster.
    ///
    /// Section "1.4 Header extensions".
    var lenientExtensions: LenientExtensions {
        guard let start = byteCount, start <= bytes.count else { return LenientExtensions(end: bytes.count) }
        var result = LenientExtensions(end: start)
        let name = self[Header.Layout.backingFileOffset]
        let areaEnd =
            name >= UInt64(start) && name <= UInt64(bytes.count) && name != 0 ? Int(name) : bytes.count
        while result.end + HeaderExtension.Layout.byteCount <= areaEnd {
            let position = result.end
            let record = bytes.span.extracting(position..<areaEnd)
            let type = HeaderExtension.Layout.type.load(from: record)
            let length = HeaderExtension.Layout.length.load(from: record)
            let offset = HostOffset(UInt64(position))
            if type == HeaderExtension.Kind.end.rawValue {
                result.end = position + HeaderExtension.Layout.byteCount
                if length != 0 { result.defect = (offset, "The END record claims \(length) bytes of data.") }
                return result
            }
            guard result.records.count < LenientExtensions.maximumRecordCount else {
                result.end = areaEnd
                result.defect = (offset, "Header extensions behind the first \(result.records.count) are not shown.")
                return result
            }
            let dataStart = position + HeaderExtension.Layout.byteCount
            let dataEnd = dataStart + min(Int(length), areaEnd - dataStart)
            result.records.append(
                Inspection.ExtensionRecord(
                    type: type, name: HeaderExtension.Kind(rawValue: type).name, offset: offset,
                    claimedByteCount: length, data: Array(bytes[dataStart..<dataEnd])))
            if dataEnd - dataStart < Int(length) {
                result.end = areaEnd
                result.defect = (
                    offset, "A header extension of \(length) bytes doesn't fit into the header's cluster."
                )
                return result
            }
            result.end = min(dataStart + (Int(length) + 7) / 8 * 8, areaEnd)
        }
        if result.end < areaEnd {
            result.defect = (
                HostOffset(UInt64(result.end)), "\(areaEnd - result.end) stray bytes follow the last header extension."
            )
            result.end = areaEnd
        }
        return result
    }
}

extension LenientExtensions {
    /// The names that the image gives to feature bits; of several for one bit, the first.
    ///
    /// Section "1.5 Feature name table".
    var featureNames: [FeatureNameKey: String] {
        var names: [FeatureNameKey: String] = [:]
        guard let data = records.last(where: { $0.type == HeaderExtension.Kind.featureNames.rawValue })?.data else {
            return names
        }
        let entryByteCount = 48
        for start in stride(from: 0, through: data.count - entryByteCount, by: entryByteCount) {
            let key = FeatureNameKey(kind: data[start], bit: data[start + 1])
            let name = data[(start + 2)..<(start + entryByteCount)].prefix { $0 != 0 }
            if names[key] == nil { names[key] = String(decoding: name, as: UTF8.self) }
        }
        return names
    }
}

extension HeaderExtension.Kind {
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
}
