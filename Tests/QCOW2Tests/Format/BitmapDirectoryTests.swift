// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "5.1 Bitmaps extension".
@Suite struct BitmapDirectoryTests {
    /// A directory entry, field by field.
    struct Raw {
        var tableOffset: UInt64 = 0x1A00
        var tableSize: UInt64 = 1
        var name = "bitmap0"
        var extra: [UInt8] = []

        var encoded: [UInt8] {
            var image = ImageBytes()
            image.set(tableOffset, at: 0)
            image.set(tableSize, 4, at: 8)
            image.set(2, 4, at: 12)
            image.set(0x0109, 2, at: 16)
            image.set(UInt64(name.utf8.count), 2, at: 18)
            image.set(UInt64(extra.count), 4, at: 20)
            image.set(extra + Array(name.utf8), at: 24)
            image.grow(to: (image.bytes.count + 7) / 8 * 8)
            return image.bytes
        }
    }

    private func decode(_ bytes: [UInt8], count: UInt32) throws(QCOW2Error) -> [BitmapDirectoryEntry] {
        try BitmapDirectoryEntry.decodeAll(bytes.span, count: count, at: HostOffset(0x1C00), in: .of())
    }

    @Test("Entries follow each other, padded to eight bytes")
    func entries() throws {
        let raw = [Raw(), Raw(tableOffset: 0x1E00, tableSize: 7, name: "b", extra: [1, 2, 3]), Raw(name: "12345678")]
        let entries = try decode(raw.flatMap(\.encoded), count: 3)
        #expect(entries.map(\.name) == raw.map { Array($0.name.utf8) })
        #expect(entries.map(\.tableOffset.rawValue) == raw.map(\.tableOffset))
        #expect(entries.map(\.tableEntryCount) == [1, 7, 1])
    }

    @Test("The count must match exactly", arguments: [0, 2] as [UInt32])
    func count(_ count: UInt32) {
        let error = #expect(throws: QCOW2Error.self) { try decode(Raw().encoded, count: count) }
        #expect(error?.code == .corrupt && error?.message.contains("nb_bitmaps") == true)
    }

    @Test("Two bitmaps of one name are refused")
    func sameName() {
        let error = #expect(throws: QCOW2Error.self) { try decode(Raw().encoded + Raw().encoded, count: 2) }
        #expect(error?.code == .corrupt && error?.offset == HostOffset(0x1C20))
    }

    @Test("A directory that ends inside an entry is refused", arguments: [1, 23, 24, 31])
    func cutOff(_ byteCount: Int) {
        let error = #expect(throws: QCOW2Error.self) { try decode(Array(Raw().encoded.prefix(byteCount)), count: 1) }
        #expect(error?.code == .corrupt && error?.offset == HostOffset(0x1C00))
    }

    @Test("The extension's record says where the directory is")
    func record() throws {
        var data = ImageBytes()
        data.set(65535, 4, at: 0)
        data.set(0, 4, at: 4)
        data.set(1024 * 65535, at: 8)
        data.set(0x1C00, at: 16)
        var image = ImageBytes()
        image.setExtensions([(0x2385_2875, data.bytes)], at: 0)
        let record = try #require(try HeaderExtension.decodeAll(in: image.bytes.span, from: 0).last(.bitmaps))
        let bitmaps = try BitmapsExtension(decoding: record, in: .of())
        #expect(bitmaps.bitmapCount == 65535 && bitmaps.directoryByteCount == 1024 * 65535)
        #expect(bitmaps.directoryOffset == HostOffset(0x1C00))
    }

    /// A table entry, its data cluster, and whether it is legal.
    static let tableEntries: [(UInt64, UInt64?, Bool)] = [
        (0, nil, true), (1, nil, true), (0x1A00, 0x1A00, true), (0x00FF_FFFF_FFFF_FE00, 0x00FF_FFFF_FFFF_FE00, true),
        (0x1A01, 0x1A00, false), (2, nil, false), (0x100, nil, false), (1 << 56, nil, false), (1 << 63, nil, false),
    ]

    @Test("Table entries are an offset, or all zeros or ones", arguments: tableEntries)
    func tableEntry(_ rawValue: UInt64, _ data: UInt64?, _ isLegal: Bool) {
        let entry = BitmapTableEntry(rawValue: rawValue)
        #expect(entry.data == data.map { HostOffset($0) } && entry.hasReservedBits == !isLegal)
    }
}
