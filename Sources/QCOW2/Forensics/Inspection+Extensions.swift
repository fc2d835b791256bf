// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What follows the header in the first cluster: sections 1.4 to 1.6.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectExtensions(_ header: LenientHeader) {
        let area = header.lenientExtensions
        extensions = area.records
        for record in area.records { annotate(record) }
        for error in area.defects {
            report(.extensionInvalid, .corruption, error.message, at: error.offset, in: "header extensions")
        }
        var seen: Set<UInt32> = []
        for record in area.records {
            let code = String(record.type, radix: 16)
            if record.name == nil {
                report(
                    .extensionUnknown, "The header extension 0x\(code) of \(record.data.count) bytes is unknown.",
                    at: record.offset, in: "header extensions")
            } else if !seen.insert(record.type).inserted {
                report(
                    .extensionDuplicate, "The header extension 0x\(code) appears more than once.",
                    at: record.offset, in: "header extensions")
            }
        }
        inspectBackingFile(header)
        inspectHiddenData(header, extensionsEnd: area.end)
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

    private mutating func inspectBackingFile(_ header: LenientHeader) {
        let offset = HostOffset(header[Layout.backingFileOffset])
        guard offset.rawValue != 0 else { return }
        let place = HostOffset(UInt64(Layout.backingFileOffset.offset))
        let byteCount = header[Layout.backingFileSize]
        let limit = header.geometry?.clusterSize ?? ImageGeometry.sectorSize
        guard offset.rawValue <= limit, byteCount <= limit - offset.rawValue, byteCount <= 1023 else {
            report(
                .backingFileOutside, .corruption,
                "The backing file's name of \(byteCount) bytes at \(offset) is not inside the header's cluster.",
                at: place)
            return
        }
        let start = min(Int(offset.rawValue), header.bytes.count)
        let nameBytes = Array(header.bytes[start..<min(start + Int(byteCount), header.bytes.count)])
        let format = extensions.last { $0.type == HeaderExtension.Kind.backingFileFormat.rawValue }
            .map { String(decoding: $0.data, as: UTF8.self) }
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
    private mutating func inspectHiddenData(_ header: LenientHeader, extensionsEnd: Int) {
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
