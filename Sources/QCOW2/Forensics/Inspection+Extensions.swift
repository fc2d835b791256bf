// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What follows the header in the first cluster: sections 1.4 to 1.6.
extension Inspection {
    private typealias Layout = Header.Layout

    /// More than any program writes; a cluster of 2 MiB could hold 262,144 empty ones.
    private static let maximumExtensionCount = 4096

    mutating func inspectExtensions(_ reading: ImageReading) {
        let header = reading.fields
        for record in reading.extensionArea.records {
            guard extensions.count < Self.maximumExtensionCount else {
                isDumpCut = true
                break
            }
            // Where the file ends in the area, that was padded with zeros.
            guard record.data.lowerBound <= header.bytes.count else { break }
            let shown = ExtensionRecord(
                type: record.kind.rawValue, name: record.kind.name, offset: record.offset,
                claimedByteCount: record.claimedByteCount,
                data: Array(header.bytes[record.data.lowerBound..<min(record.data.upperBound, header.bytes.count)]))
            extensions.append(shown)
            annotate(shown)
            if record.kind.name == nil {
                report(
                    .extensionUnknown,
                    "The header extension 0x\(String(record.kind.rawValue, radix: 16)) of \(shown.data.count) bytes is "
                        + "unknown.", at: record.offset, in: "header extensions")
            }
        }
        inspectBackingFile(reading)
        inspectHiddenData(header, extensionsEnd: reading.extensionArea.end)
    }

    private mutating func annotate(_ record: ExtensionRecord) {
        var fields = [
            AnnotatedField(
                name: HeaderExtension.Layout.type.name, offset: record.offset, bytes: record.type.bigEndianBytes),
            AnnotatedField(
                name: HeaderExtension.Layout.length.name, offset: record.offset.saturating(adding: 4),
                bytes: record.claimedByteCount.bigEndianBytes),
        ]
        if !record.data.isEmpty {
            fields.append(
                AnnotatedField(name: "data", offset: record.offset.saturating(adding: 8), bytes: record.data))
        }
        annotate("header extension: \(record.name ?? "unknown")", at: record.offset, fields)
    }

    private mutating func inspectBackingFile(_ reading: ImageReading) {
        let header = reading.fields
        let offset = HostOffset(header[Layout.backingFileOffset])
        let place = Layout.backingFileOffset.place
        let byteCount = header[Layout.backingFileSize]
        // A name somewhere else is a field that the reading refused.
        let limit = header.geometry?.clusterSize ?? ImageGeometry.sectorSize
        guard offset.rawValue != 0, offset.rawValue <= limit, byteCount <= limit - offset.rawValue,
            byteCount <= Header.maximumBackingFileNameByteCount
        else { return }
        let start = min(Int(offset.rawValue), header.bytes.count)
        let nameBytes = Array(header.bytes[start..<min(start + Int(byteCount), header.bytes.count)])
        let format = reading.extensions.last(.backingFileFormat).map { String(decoding: $0.data, as: UTF8.self) }
        let name = BackingFileName(offset: offset, nameBytes: nameBytes, format: format)
        backingFile = name
        // Where the file ends before the name, there is no field to show.
        if !nameBytes.isEmpty {
            annotate(
                "backing file", at: offset,
                [AnnotatedField(name: "backing file name", offset: offset, bytes: nameBytes)])
        }
        report(
            .backingFile,
            "Data shows through from the backing file '\(escaped(nameBytes))', which is not opened; "
                + "clusters that a state doesn't have are there.", at: offset)
        if format == nil {
            report(
                .backingFormatMissing,
                "The image doesn't say which format its backing file has; who guesses can be deceived by its content.",
                at: place)
        }
        let scheme = name.name.unicodeScalars.prefix {
            $0.isASCII && ($0.properties.isAlphabetic || ("0"..."9").contains($0) || "+-._".unicodeScalars.contains($0))
        }
        if !scheme.isEmpty, name.name.unicodeScalars.dropFirst(scheme.count).first == ":" {
            report(
                .backingFileSpecial,
                "The backing file's name begins with '\(String(scheme)):', which QEMU takes for a protocol.",
                at: offset)
        } else if name.nameBytes.first == UInt8(ascii: "/") {
            report(.backingFileSpecial, "The backing file's name is an absolute path.", at: offset)
        }
    }

    /// Finds bytes in the first cluster that belong to nothing: QEMU would erase them with its next header.
    private mutating func inspectHiddenData(_ header: HeaderFields, extensionsEnd: Int) {
        guard header.geometry != nil else { return }
        var used = [(start: 0, end: extensionsEnd)]
        if let backingFile {
            let start = Int(backingFile.offset.rawValue)
            used.append((start, start + backingFile.nameBytes.count))
        }
        var position = 0
        for (start, end) in used.sorted(by: { $0.start < $1.start }) + [(header.bytes.count, header.bytes.count)] {
            reportHidden(in: header.bytes, from: position, to: start)
            position = max(position, end)
        }
    }

    private mutating func reportHidden(in bytes: [UInt8], from start: Int, to end: Int) {
        // A name may begin behind the end of a file that was cut off.
        let end = min(end, bytes.count)
        guard start < end, let first = bytes[start..<end].firstIndex(where: { $0 != 0 }) else { return }
        let count = bytes[first..<end].reduce(0) { $0 + ($1 == 0 ? 0 : 1) }
        report(
            .dataBehindHeader,
            "\(count) bytes of the header's cluster, which no header, extension or name explains, aren't zero.",
            at: HostOffset(UInt64(first)))
        let area = Array(bytes[first..<end])
        remnants.collect(in: area, from: HostOffset(UInt64(first)), place: .slack)
    }
}

extension UInt32 {
    fileprivate var bigEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> (24 - 8 * UInt32($0))) } }
}
