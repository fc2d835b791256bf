// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "1.1 Fields" and "1.3 header_length and additional fields".
@Suite struct HeaderTests {
    /// State B's header in another version or with another length.
    struct Variant: CustomTestStringConvertible, Sendable {
        let version: UInt64
        let headerLength: UInt64
        var testDescription: String { "v\(version), \(headerLength) bytes" }

        static let all = [
            Variant(version: 2, headerLength: 72), Variant(version: 3, headerLength: 104),
            Variant(version: 3, headerLength: 105), Variant(version: 3, headerLength: 108),
            Variant(version: 3, headerLength: 112), Variant(version: 3, headerLength: 200),
            Variant(version: 3, headerLength: 512),
        ]

        var bytes: [UInt8] {
            var image = WorkedExample.b.image
            image.set(version, 4, at: 4)
            if version == 3 { image.set(headerLength, 4, at: 100) }
            // Everything behind the known fields is something that nobody knows.
            let known = version == 2 ? 72 : 105
            for offset in known..<512 { image.set(UInt64(offset) & 0xFF | 1, 1, at: offset) }
            return Array(image.bytes[..<512])
        }
    }

    @Test("Decoding, encoding and decoding again changes nothing", arguments: Variant.all)
    func roundTrip(_ variant: Variant) throws {
        let bytes = variant.bytes
        // The compression type is a bit pattern like any other here.
        let header = try Header(decoding: bytes.span)
        #expect(header.version == UInt32(variant.version) && header.headerByteCount == UInt32(variant.headerLength))
        #expect(header.size == 8192 && header.clusterBits == 9 && header.refcountOrder == 4)
        #expect(header.l1EntryCount == 1 && header.l1TableOffset == HostOffset(0x600))
        #expect(header.refcountTableOffset == HostOffset(0x200) && header.refcountTableClusterCount == 1)

        var target = bytes
        var span = target.mutableSpan
        header.encode(into: &span)
        #expect(target == bytes)
        #expect(try Header(decoding: target.span) == header)
    }

    @Test("A changed field lands in its place, and nothing else changes", arguments: Variant.all)
    func patch(_ variant: Variant) throws {
        let bytes = variant.bytes
        var header = try Header(decoding: bytes.span)
        header.size = 0x1234
        header.l1EntryCount = 7
        header.l1TableOffset = HostOffset(0x1000)
        header.refcountTableOffset = HostOffset(0x2000)
        header.refcountTableClusterCount = 3
        header.snapshotCount = 2
        header.snapshotTableOffset = HostOffset(0x3000)
        var expected = ImageBytes(bytes: bytes)
        expected.set(0x1234, at: 24)
        expected.set(7, 4, at: 36)
        expected.set(0x1000, at: 40)
        expected.set(0x2000, at: 48)
        expected.set(3, 4, at: 56)
        expected.set(2, 4, at: 60)
        expected.set(0x3000, at: 64)
        if variant.version == 3 {
            header.autoclearFeatures = .bitmaps
            expected.set(1, at: 88)
        }
        var target = bytes
        var span = target.mutableSpan
        header.encode(into: &span)
        #expect(target == expected.bytes)
    }

    @Test("Version 2 has no feature words, whatever the bytes there say")
    func version2() throws {
        let bytes = Variant(version: 2, headerLength: 72).bytes
        let header = try Header(decoding: bytes.span)
        #expect(header.incompatibleFeatures == [] && header.compatibleFeatures == [] && header.autoclearFeatures == [])
        #expect(header.refcountOrder == 4 && header.compressionType == .deflate && header.headerByteCount == 72)
        #expect(header.isVersion2 && !header.geometry.hasZeroFlag)
    }

    @Test("A field behind the header's length is absent and zero", arguments: [104, 105] as [UInt64])
    func absent(_ headerLength: UInt64) throws {
        var image = WorkedExample.b.image
        image.set(headerLength, 4, at: 100)
        image.set(1, 1, at: 104)
        let header = try Header(decoding: image.bytes.span)
        #expect(header.compressionType == (headerLength == 104 ? .deflate : .zstd))
    }

    /// A range that the table of section 1.1 allows: its ends are legal, and the numbers beside them aren't.
    static let cryptMethods: [(UInt64, EncryptionMethod)] = [(0, .none), (1, .aes), (2, .luks)]

    @Test("The encryption methods have their numbers", arguments: cryptMethods)
    func encryption(_ number: UInt64, _ method: EncryptionMethod) throws {
        var image = WorkedExample.b.image
        image.set(number, 4, at: 32)
        let header = try Header(decoding: image.bytes.span)
        #expect(header.encryption == method)
    }

    /// Offset, bytes and a legal value of a field at one end of its range.
    static let legalValues: [(Int, Int, UInt64)] = [
        (20, 4, 9), (20, 4, 21), (24, 8, 0), (24, 8, 32768), (36, 4, 4_194_304), (40, 8, (1 << 63) - (1 << 21)),
        (56, 4, 4), (60, 4, 65536), (64, 8, 0xFFFF_FFFF_FFE0_0000), (96, 4, 0), (96, 4, 6),
        (80, 8, .max), (88, 8, .max), (72, 8, 0xFFFF_FFFF_FFFF_FFEF),
    ]

    @Test("Values at the ends of a range are legal", arguments: legalValues)
    func legal(_ offset: Int, _ byteCount: Int, _ value: UInt64) throws {
        var image = WorkedExample.b.image
        for field in [40, 48, 64] { image.set(1 << 21, at: field) }
        image.set(value, byteCount, at: offset)
        let header = try Header(decoding: image.bytes.span)
        var target = image.bytes
        var span = target.mutableSpan
        header.encode(into: &span)
        #expect(target == image.bytes)
    }

    @Test("The backing file's name may end where the first cluster ends")
    func backingName() throws {
        var image = WorkedExample.b.image
        image.set(112, at: 8)
        image.set(400, 4, at: 16)
        let header = try Header(decoding: image.bytes.span)
        #expect(header.backingFileOffset == HostOffset(112) && header.backingFileNameByteCount == 400)
    }
}
