// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "4.1 Entry".
@Suite struct SnapshotTableEntryTests {
    private static let base = HostOffset(0xE00)

    private func decode(_ bytes: [UInt8]) throws(QCOW2Error) -> SnapshotTableEntry {
        try SnapshotTableEntry(decoding: bytes.span, at: Self.base, in: .of())
    }

    private func encode(_ entry: SnapshotTableEntry) -> [UInt8] {
        var table: [UInt8] = []
        entry.encode(to: &table)
        #expect(table.count == entry.encodedByteCount)
        return table
    }

    static let numbers: [UInt8] = RawSnapshot.extra(0x1_0000_0005, 0x2000, 77)
    static let unknown = [UInt8](1...16)

    /// Extra data, and what it must say: VM state size, disk size, icount, the unknown rest.
    struct Extra: CustomTestStringConvertible, Sendable {
        let byteCount: Int
        let vmStateSize: UInt64
        let diskSize: UInt64?
        let icount: UInt64?
        let unknownByteCount: Int
        var testDescription: String { "E = \(byteCount)" }

        static let all =
            [0, 1, 7].map { Extra(byteCount: $0, vmStateSize: 9, diskSize: nil, icount: nil, unknownByteCount: 0) }
            + [8, 15].map {
                Extra(byteCount: $0, vmStateSize: 0x1_0000_0005, diskSize: nil, icount: nil, unknownByteCount: 0)
            }
            + (16...23).map {
                Extra(byteCount: $0, vmStateSize: 0x1_0000_0005, diskSize: 0x2000, icount: nil, unknownByteCount: 0)
            }
            + [24, 25, 40].map {
                Extra(
                    byteCount: $0, vmStateSize: 0x1_0000_0005, diskSize: 0x2000, icount: 77, unknownByteCount: $0 - 24)
            }
    }

    @Test("Extra data says what its length allows, and becomes at least 24 bytes", arguments: Extra.all)
    func extra(_ extra: Extra) throws {
        let bytes = Array((Self.numbers + Self.unknown).prefix(extra.byteCount))
        let entry = try decode(RawSnapshot(vmStateSize: 9, extra: bytes).encoded)
        #expect(entry.vmStateSize == extra.vmStateSize && entry.diskSize == extra.diskSize)
        #expect(entry.icount == extra.icount)
        #expect(entry.unknownExtraData == Array(Self.unknown.prefix(extra.unknownByteCount)))
        #expect(entry.id == Array("1".utf8) && entry.name == Array("s1".utf8))

        // What is written means the same, and stays the same from then on.
        var known = entry
        known.diskSize = known.diskSize ?? 512
        let written = encode(known)
        #expect(ImageBytes(bytes: written).number(4, at: 36) == UInt64(max(24, extra.byteCount)))
        let again = try decode(written)
        #expect(again == known)
        #expect(encode(again) == written)
    }

    @Test("Entries of this library's form round-trip byte for byte")
    func roundTrip() throws {
        let raw = RawSnapshot(
            l1TableOffset: 0xC00, l1EntryCount: 3, id: Array("12".utf8), name: Array("name".utf8), seconds: 0xFFFF_FFFF,
            nanoseconds: 999_999_999, vmClock: .max, vmStateSize: 5, extra: RawSnapshot.extra(5, 0x2000, 0))
        let entry = try decode(raw.encoded)
        #expect(entry.l1TableOffset == HostOffset(0xC00) && entry.l1EntryCount == 3)
        #expect(entry.seconds == .max && entry.nanoseconds == 999_999_999 && entry.vmClock == .max)
        #expect(entry.icount == 0)
        #expect(encode(entry) == raw.encoded)
    }

    /// VM state size, and the 32-bit field that stands for it.
    static let vmStateSizes: [(UInt64, UInt64)] = [
        (0, 0), (1, 1), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x1_0000_0000, 0), (.max, 0),
    ]

    @Test("A VM state that 32 bits can't say is 0 there", arguments: vmStateSizes)
    func vmState(_ size: UInt64, _ small: UInt64) throws {
        var entry = try decode(RawSnapshot().encoded)
        entry.vmStateSize = size
        let bytes = ImageBytes(bytes: encode(entry))
        #expect(bytes.number(4, at: 32) == small && bytes.number(at: 40) == size)
        #expect(try decode(bytes.bytes).vmStateSize == size)
    }

    @Test("An icount of all ones is none, and none is all ones")
    func icount() throws {
        let entry = try decode(RawSnapshot(extra: RawSnapshot.extra(0, 0, .max)).encoded)
        #expect(entry.icount == nil)
        #expect(ImageBytes(bytes: encode(entry)).number(at: 56) == .max)
        let fresh = SnapshotTableEntry(id: [0x31], name: [0x61], seconds: 4, nanoseconds: 5, diskSize: 512)
        #expect(ImageBytes(bytes: encode(fresh)).number(at: 56) == .max)
    }

    static let texts: [[UInt8]] = [
        [], [0], Array("a\0b".utf8), [0xFF, 0xFE, 0x80], [UInt8](repeating: 0x61, count: 65535), Array("日本".utf8),
    ]

    @Test("IDs and names are any bytes", arguments: texts, texts)
    func strings(_ id: [UInt8], _ name: [UInt8]) throws {
        let raw = RawSnapshot(id: id, name: name)
        let entry = try decode(raw.encoded + [1, 2, 3])
        #expect(entry.id == id && entry.name == name)
        #expect(encode(entry) == raw.encoded)
    }

    @Test("The largest extra data is 1024 bytes")
    func largestExtra() throws {
        let bytes = Self.numbers + [UInt8](repeating: 7, count: 1000)
        let entry = try decode(RawSnapshot(extra: bytes).encoded)
        #expect(entry.unknownExtraData.count == 1000)
        #expect(encode(entry).count == 40 + 1024 + 3)
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let offset: UInt64
        let field: String
        let change: @Sendable (inout ImageBytes) -> Void

        init(
            _ name: String, at offset: UInt64, _ field: String, _ change: @escaping @Sendable (inout ImageBytes) -> Void
        ) {
            testDescription = name
            self.offset = 0xE00 + offset
            self.field = field
            self.change = change
        }
    }

    static let refusals = [
        Refusal("39 bytes", at: 0, "snapshot table entry") { $0.bytes.removeSubrange(39...) },
        Refusal("no byte", at: 0, "snapshot table entry") { $0.bytes = [] },
        Refusal("name cut off", at: 0, "snapshot table entry") { $0.bytes.removeLast() },
        Refusal("E 1025", at: 36, "extra_data_size") {
            $0.set(1025, 4, at: 36)
            $0.grow(to: 4096)
        },
        Refusal("E 0xFFFFFFFF", at: 36, "extra_data_size") { $0.set(0xFFFF_FFFF, 4, at: 36) },
        Refusal("E past the end", at: 0, "snapshot table entry") { $0.set(1024, 4, at: 36) },
        Refusal("id_str_size 0xFFFF", at: 0, "snapshot table entry") { $0.set(0xFFFF, 2, at: 12) },
        Refusal("name_size 0xFFFF", at: 0, "snapshot table entry") { $0.set(0xFFFF, 2, at: 14) },
        Refusal("l1_size 4194305", at: 8, "l1_size") { $0.set(4_194_305, 4, at: 8) },
        Refusal("l1_size 0xFFFFFFFF", at: 8, "l1_size") { $0.set(0xFFFF_FFFF, 4, at: 8) },
        Refusal("unaligned L1", at: 0, "l1_table_offset") { $0.set(0x601, at: 0) },
        Refusal("L1 in the header", at: 0, "l1_table_offset") { $0.set(1, 4, at: 8) },
    ]

    @Test("Malformed entries are refused where they are", arguments: refusals)
    func refused(_ refusal: Refusal) {
        var image = ImageBytes(bytes: RawSnapshot().encoded)
        refusal.change(&image)
        let error = #expect(throws: QCOW2Error.self) { try decode(image.bytes) }
        #expect(error?.code == .corrupt && error?.offset == HostOffset(refusal.offset))
        #expect(error?.message.contains(refusal.field) == true)
    }
}
