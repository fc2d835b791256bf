// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The records behind a header, as far as they can be told apart.
struct LenientExtensions {
    var records: [Inspection.ExtensionRecord] = []
    /// What is wrong with them: where reading stopped, and lengths that a kind can't have.
    var defects: [QCOW2Error] = []
    /// Where the records end in the first cluster, END record included.
    var end: Int

    /// More than any program writes; a cluster of 2 MiB could hold 262,144 empty ones.
    static let maximumRecordCount = 4096

    /// The names that the image gives to feature bits.
    var featureNames: FeatureNameTable {
        FeatureNameTable(
            decoding: records.last { $0.type == HeaderExtension.Kind.featureNames.rawValue }?.data ?? [])
    }
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
        let area = bytes.span.extracting(..<areaEnd)
        do throws(QCOW2Error) {
            while result.end < areaEnd {
                let position = result.end
                // What can't be told apart belongs to the records.
                result.end = areaEnd
                let record = try HeaderExtensionRecord(at: position, in: area)
                if record.kind == .end {
                    result.end = record.data.lowerBound
                    guard record.claimedByteCount > 0 else { return result }
                    throw .invalid(
                        "header extension length", "the END record claims \(record.claimedByteCount) bytes",
                        at: record.offset)
                }
                guard result.records.count < LenientExtensions.maximumRecordCount else {
                    throw .invalid(
                        "header extension", "those behind the first \(result.records.count) are not shown",
                        at: record.offset)
                }
                result.records.append(
                    Inspection.ExtensionRecord(
                        type: record.kind.rawValue, name: record.kind.name, offset: record.offset,
                        claimedByteCount: record.claimedByteCount, data: Array(bytes[record.data])))
                try record.checkLength()
                result.end = min(record.end, areaEnd)
                do throws(QCOW2Error) { try record.checkKind() } catch { result.defects.append(error) }
            }
        } catch {
            result.defects.append(error)
        }
        return result
    }
}
