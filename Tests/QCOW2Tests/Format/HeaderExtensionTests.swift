// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "1.4 Header extensions".
@Suite struct HeaderExtensionTests {
    private func decode(_ bytes: [UInt8], from start: Int = 0) throws(QCOW2Error) -> [HeaderExtension] {
        try HeaderExtension.decodeAll(in: bytes.span, from: start)
    }

    private static func area(_ records: [(type: UInt32, data: [UInt8])]) -> [UInt8] {
        var image = ImageBytes()
        image.setExtensions(records, at: 0)
        return image.bytes
    }

    @Test("Records keep their order, their offsets and their bytes, unknown and repeated ones too")
    func order() throws {
        let records: [(type: UInt32, data: [UInt8])] = [
            (0x1234_5678, [1, 2, 3]), (0xE279_2ACA, Array("raw".utf8)), (0x1234_5678, []), (0x8765_4321, [9]),
        ]
        let extensions = try decode(Self.area(records))
        #expect(extensions.map(\.kind.rawValue) == records.map(\.type))
        #expect(extensions.map(\.data) == records.map(\.data))
        #expect(extensions.map(\.offset.rawValue) == [0, 16, 32, 40])
    }

    @Test("The last of repeated records counts", arguments: [0xE279_2ACA, 0x6803_F857, 0x4441_5441] as [UInt32])
    func lastWins(_ type: UInt32) throws {
        let extensions = try decode(Self.area([(type, [1]), (0x7777, [2]), (type, [3])]))
        #expect(extensions.count == 3)
        #expect(extensions.last(HeaderExtension.Kind(rawValue: type))?.data == [3])
    }

    @Test("Nothing is read behind END")
    func end() throws {
        var image = ImageBytes(bytes: Self.area([(0x7777, [1])]))
        image.setExtensions([(0x8888, [2])], at: image.bytes.count)
        #expect(try decode(image.bytes).map(\.kind.rawValue) == [0x7777])
    }

    @Test("END may carry data, if it fits")
    func endWithData() throws {
        var image = ImageBytes()
        image.set(8, at: 0)
        image.set(0x5555, at: 8)
        #expect(try decode(image.bytes) == [])
    }

    @Test("No END is needed when the last record ends with the area, padded or not", arguments: [8, 5])
    func noEnd(_ byteCount: Int) throws {
        var image = ImageBytes()
        image.set(0x7777, 4, at: 0)
        image.set(UInt64(byteCount), 4, at: 4)
        image.set([UInt8](repeating: 7, count: byteCount), at: 8)
        #expect(try decode(image.bytes).map(\.data.count) == [byteCount])
    }

    @Test("Padding need not be zero")
    func padding() throws {
        var image = ImageBytes(bytes: Self.area([(0x7777, [1, 2, 3]), (0x8888, [4])]))
        image.set(0xFF_FFFF_FFFF, 5, at: 11)
        #expect(try decode(image.bytes).map(\.data) == [[1, 2, 3], [4]])
    }

    @Test("An empty area holds nothing", arguments: [0, 16])
    func empty(_ start: Int) throws {
        #expect(try decode([UInt8](repeating: 0xFF, count: 16), from: 16) == [])
        #expect(try decode([], from: start) == [])
    }

    @Test("Records may start anywhere, as after a header of 105 bytes")
    func unaligned() throws {
        var image = ImageBytes()
        image.setExtensions([(0x7777, [1, 2])], at: 105)
        let extensions = try decode(image.bytes, from: 105)
        #expect(extensions.map(\.offset.rawValue) == [105])
    }

    struct Refusal: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let bytes: [UInt8]
        let offset: UInt64

        init(_ name: String, at offset: UInt64, _ make: (inout ImageBytes) -> Void) {
            var image = ImageBytes()
            make(&image)
            testDescription = name
            bytes = image.bytes
            self.offset = offset
        }
    }

    static let refusals = [
        Refusal("a length of 0xFFFFFFFF", at: 0) { $0.set(0x7777_FFFF_FFFF, at: 0) },
        Refusal("a length one too large", at: 16) {
            $0.setExtensions([(0x7777, [1])], at: 0)
            $0.set(0x7777_0000_0009, at: 16)
            $0.grow(to: 32)
        },
        Refusal("END of a length that doesn't fit", at: 0) { $0.set(1, at: 0) },
        Refusal("END of 0xFFFFFFFF bytes", at: 0) { $0.set(0xFFFF_FFFF, at: 0) },
        Refusal("one stray byte", at: 16) {
            $0.setExtensions([(0x7777, [1])], at: 0)
            $0.bytes.removeLast(7)
        },
        Refusal("seven stray bytes", at: 16) {
            $0.setExtensions([(0x7777, [1])], at: 0)
            $0.bytes.removeLast(1)
        },
        Refusal("two bitmaps records", at: 32) {
            $0.setExtensions(
                [(0x2385_2875, [UInt8](repeating: 0, count: 24)), (0x2385_2875, [UInt8](repeating: 0, count: 24))],
                at: 0)
        },
        Refusal("two encryption records", at: 24) {
            $0.setExtensions(
                [(0x0537_BE77, [UInt8](repeating: 0, count: 16)), (0x0537_BE77, [UInt8](repeating: 0, count: 16))],
                at: 0)
        },
        Refusal("a bitmaps record of 23 bytes", at: 0) {
            $0.setExtensions([(0x2385_2875, [UInt8](repeating: 0, count: 23))], at: 0)
        },
        Refusal("an encryption record of 24 bytes", at: 0) {
            $0.setExtensions([(0x0537_BE77, [UInt8](repeating: 0, count: 24))], at: 0)
        },
        Refusal("a backing format of 16 bytes", at: 0) {
            $0.setExtensions([(0xE279_2ACA, [UInt8](repeating: 0x61, count: 16))], at: 0)
        },
    ]

    @Test("Malformed records are refused where they are", arguments: refusals)
    func refused(_ refusal: Refusal) {
        let error = #expect(throws: QCOW2Error.self) { try decode(refusal.bytes) }
        #expect(error?.code == .corrupt)
        #expect(error?.offset == HostOffset(refusal.offset))
        #expect(error?.message.contains("header extension") == true)
    }
}

/// Section "1.5 Feature name table".
@Suite struct FeatureNameTests {
    private static func entry(_ type: UInt8, _ bit: UInt8, _ name: String) -> [UInt8] {
        [type, bit] + Array(name.utf8.prefix(46)) + [UInt8](repeating: 0, count: max(0, 46 - name.utf8.count))
    }

    private func name(of bit: UInt8, in table: [UInt8]) throws -> String? {
        var image = ImageBytes()
        image.setExtensions([(0x6803_F857, table)], at: 0)
        return try HeaderExtension.decodeAll(in: image.bytes.span, from: 0).incompatibleFeatureName(bit: bit)
    }

    static let table =
        entry(0, 0, "dirty bit") + entry(1, 5, "compatible") + entry(2, 5, "autoclear") + entry(0, 5, "time travel")
        + entry(0, 64, "no such bit") + entry(0, 63, String(repeating: "x", count: 46))

    @Test("An incompatible bit's name is found by type and number")
    func found() throws {
        #expect(try name(of: 5, in: Self.table) == "time travel")
        #expect(try name(of: 63, in: Self.table) == String(repeating: "x", count: 46))
        #expect(try name(of: 6, in: Self.table) == nil)
    }

    @Test("A cut-off table has no names in its last piece", arguments: [0, 1, 47])
    func cutOff(_ byteCount: Int) throws {
        #expect(try name(of: 0, in: Array(Self.table.prefix(byteCount))) == nil)
    }
}
