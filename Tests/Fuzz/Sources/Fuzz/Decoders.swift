// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

// Reaches the decoders themselves: Scripts/fuzz.sh builds with -enable-testing.
@testable import QCOW2

func fuzzHeader(_ input: [UInt8]) {
    _ = Header.annotatedFields(in: input.span)
    let fields = HeaderFields(input)
    guard let header = try? Header(decoding: input.span) else { return }
    guard fields.hasMagic, fields.geometry == header.geometry, fields.byteCount == Int(header.headerByteCount) else {
        fail("the header's fields differ from the header")
    }
    // Encoding over the same bytes changes nothing.
    var copy = input
    var span = copy.mutableSpan
    header.encode(into: &span)
    if copy != input { fail("encoding the header changed it") }
    let area = input.span.extracting(..<min(input.count, header.geometry.clusterByteCount))
    guard let records = try? HeaderExtension.decodeAll(in: area, from: Int(header.headerByteCount)) else { return }
    for bit in UInt8(0)..<64 { _ = records.incompatibleFeatureName(bit: bit) }
    if let record = records.last(.bitmaps) { _ = try? BitmapsExtension(decoding: record, in: header.geometry) }
    if let record = records.last(.encryption) { _ = try? EncryptionHeader(decoding: record, in: header.geometry) }
}

/// A geometry that a byte chooses; clusters are small, so that inputs are.
private func geometry(_ choice: UInt8) -> ImageGeometry {
    let isExtended = choice & 1 != 0
    let clusterBits = isExtended ? 14 : 9 + Int(choice >> 1 & 3)
    return ImageGeometry(
        clusterBits: clusterBits, refcountOrder: Int(choice >> 3 & 7) % 7, hasExtendedL2: isExtended,
        hasZeroFlag: !isExtended && choice & 0x80 == 0)
}

func fuzzL2Table(_ input: [UInt8]) {
    guard let choice = input.first else { return }
    let geometry = geometry(choice)
    var table = Array(input.dropFirst().prefix(geometry.clusterByteCount))
    table.append(contentsOf: repeatElement(0, count: geometry.clusterByteCount - table.count))
    let scan = L2TableScan(geometry: geometry, fileByteCount: choice & 0x40 == 0 ? 1 << 20 : 1 << 55)
    var runs: [UInt64: UInt64] = [:]
    func count(_ run: ClusterRun) {
        guard run.count > 0, run.count < 1 << 13 else { fail("a run of \(run.count) clusters") }
        for cluster in run.first..<run.end { runs[cluster, default: 0] += 1 }
    }
    let isWhole = (try? scan.forEachRun(in: table.span, at: HostOffset(0), count)) != nil
    let fast = runs
    runs = [:]
    // Entry by entry the same comes out.
    var isValid = true
    for position in stride(from: 0, to: table.count, by: geometry.l2EntryByteCount) {
        let entry = L2Entry(rawValue: table.span.loadBigEndian(at: position))
        _ = (entry.mapping(in: geometry), entry.ownCluster, entry.defect(in: geometry))
        if geometry.hasExtendedL2 {
            let bitmap = SubclusterBitmap(rawValue: table.span.loadBigEndian(at: position + 8))
            for index in 0..<SubclusterBitmap.subclusterCount { _ = bitmap.mapping(ofSubcluster: index) }
        }
        do throws(QCOW2Error) {
            if let run = try scan.target(of: entry, in: table.span, position, HostOffset(0)) { count(run) }
        } catch {
            isValid = false
        }
    }
    if isWhole != isValid { fail("the scan and its entries disagree about whether the table is valid") }
    if isWhole, fast != runs { fail("the scan and its entries count differently") }
    scan.forEachFlag(in: table.span) { index, _, _ in if index >= geometry.l2EntryCount { fail("index \(index)") } }
}

func fuzzSnapshotTable(_ input: [UInt8]) {
    let geometry = geometry(4)
    var position = 0
    while position < input.count {
        let rest = input.span.extracting(position..<input.count)
        _ = SnapshotTableEntry.annotatedFields(in: rest, at: HostOffset(UInt64(position)))
        guard let entry = try? SnapshotTableEntry(decoding: rest, at: HostOffset(0), in: geometry) else { return }
        var encoded: [UInt8] = []
        entry.encode(to: &encoded)
        let again = try? SnapshotTableEntry(decoding: encoded.span, at: HostOffset(0), in: geometry)
        var expected = entry
        // What old entries lack is written.
        expected.diskSize = entry.diskSize ?? 0
        if again != expected { fail("an encoded snapshot differs from what was decoded") }
        if encoded.count != entry.encodedByteCount { fail("an encoded snapshot has another length") }
        _ = (entry.isPlausible, SnapshotTableEntry.nextID(after: [entry]))
        let extraByteCount = Int(SnapshotTableEntry.Layout.extraDataSize.load(from: rest))
        position += (40 + extraByteCount + entry.id.count + entry.name.count + 7) / 8 * 8
    }
}

func fuzzBitmapDirectory(_ input: [UInt8]) {
    guard input.count >= 26, let choice = input.first else { return }
    let geometry = geometry(choice & ~1)
    let record = HeaderExtension(kind: .bitmaps, offset: HostOffset(104), data: Array(input[1..<25]))
    _ = try? BitmapsExtension(decoding: record, in: geometry)
    let directory = Array(input[26...])
    var (lenientCount, position) = (0, 0)
    while position < directory.count {
        let rest = directory.span.extracting(position..<directory.count)
        guard let found = try? BitmapDirectoryEntry.decodeFields(rest, at: HostOffset(UInt64(position))) else { break }
        lenientCount += 1
        position += found.byteCount
    }
    let entries = try? BitmapDirectoryEntry.decodeAll(
        directory.span, count: UInt32(input[25]), at: HostOffset(0), in: geometry)
    if let entries, lenientCount != entries.count { fail("the lenient directory has another length") }
}

func fuzzCodec(_ input: [UInt8]) {
    guard let choice = input.first else { return }
    let byteCount = 512 << Int(choice >> 1 & 7)
    let type: CompressionType = choice & 1 == 0 ? .deflate : .zstd
    let data = Array(input.dropFirst())
    var output = [UInt8](repeating: 0, count: byteCount)
    var span = output.mutableSpan
    do throws(QCOW2Error) {
        try ClusterCodec.decompress(data.span, type, into: &span, at: HostOffset(0))
    } catch {
        if error.code != .corrupt { fail("decompressing failed: \(error)") }
    }
}
