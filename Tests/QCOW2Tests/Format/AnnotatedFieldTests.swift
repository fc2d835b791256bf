// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import Testing

@testable import QCOW2

/// The annotated dump, on the worked example of section 8.
@Suite struct AnnotatedFieldTests {
    /// Name, offset, length and number of every header field in state C.
    static let header: [(String, UInt64, Int, UInt64)] = [
        ("magic", 0, 4, 0x5146_49FB), ("version", 4, 4, 3), ("backing_file_offset", 8, 8, 0),
        ("backing_file_size", 16, 4, 0), ("cluster_bits", 20, 4, 9), ("size", 24, 8, 8192), ("crypt_method", 32, 4, 0),
        ("l1_size", 36, 4, 1), ("l1_table_offset", 40, 8, 0x600), ("refcount_table_offset", 48, 8, 0x200),
        ("refcount_table_clusters", 56, 4, 1), ("nb_snapshots", 60, 4, 1), ("snapshots_offset", 64, 8, 0xE00),
        ("incompatible_features", 72, 8, 0), ("compatible_features", 80, 8, 0), ("autoclear_features", 88, 8, 0),
        ("refcount_order", 96, 4, 4), ("header_length", 100, 4, 112), ("compression_type", 104, 1, 0),
    ]

    private func check(_ fields: [AnnotatedField], _ expected: [(String, UInt64, Int, UInt64)], in bytes: [UInt8]) {
        #expect(fields.map(\.name) == expected.map(\.0))
        #expect(fields.map(\.offset.rawValue) == expected.map(\.1))
        #expect(fields.map(\.bytes.count) == expected.map(\.2))
        #expect(fields.map(\.value) == expected.map(\.3))
        for field in fields {
            let start = Int(field.offset.rawValue)
            #expect(field.bytes == Array(bytes[start..<(start + field.bytes.count)]))
        }
    }

    @Test("Every header field has its name, place and bytes")
    func headerFields() throws {
        let image = try Image(storage: InMemoryStorage(WorkedExample.c.bytes))
        check(try image.annotatedHeader(), Self.header, in: WorkedExample.c.bytes)
    }

    @Test("Fields that a header doesn't have are left out")
    func shortHeaders() {
        var image = WorkedExample.c.image
        image.set(104, 4, at: 100)
        #expect(Header.annotatedFields(in: image.bytes.span).map(\.name) == Self.header.dropLast().map(\.0))
        image.set(2, 4, at: 4)
        #expect(Header.annotatedFields(in: image.bytes.span).map(\.name) == Self.header.prefix(13).map(\.0))
        let cut = Array(WorkedExample.c.bytes.prefix(50))
        #expect(Header.annotatedFields(in: cut.span).map(\.name) == Self.header.prefix(9).map(\.0))
        #expect(Header.annotatedFields(in: [UInt8]().span).isEmpty)
    }

    @Test("Every field of a snapshot table entry has its name, place and bytes")
    func snapshotFields() {
        let bytes = WorkedExample.c.bytes
        let entry = Array(bytes[0xE00...])
        let fields = SnapshotTableEntry.annotatedFields(in: entry.span, at: HostOffset(0xE00))
        let expected: [(String, UInt64, Int, UInt64)] = [
            ("l1_table_offset", 0xE00, 8, 0xC00), ("l1_size", 0xE08, 4, 1), ("id_str_size", 0xE0C, 2, 1),
            ("name_size", 0xE0E, 2, 2), ("date_sec", 0xE10, 4, 0x6B03_BDF9), ("date_nsec", 0xE14, 4, 0x2270_77A0),
            ("vm_clock_nsec", 0xE18, 8, 0), ("vm_state_size", 0xE20, 4, 0), ("extra_data_size", 0xE24, 4, 24),
            ("vm_state_size_large", 0xE28, 8, 0), ("disk_size", 0xE30, 8, 8192), ("icount", 0xE38, 8, 0),
            ("id", 0xE40, 1, 0x31), ("name", 0xE41, 2, 0x7331),
        ]
        check(fields, expected, in: bytes)
    }

    @Test("A malformed entry is shown as far as it goes", arguments: [0, 8, 39, 40, 48])
    func malformed(_ byteCount: Int) {
        var image = ImageBytes(bytes: RawSnapshot().encoded)
        image.set(0xFFFF_FFFF, 4, at: 36)
        let bytes = Array(image.bytes.prefix(byteCount))
        let fields = SnapshotTableEntry.annotatedFields(in: bytes.span, at: HostOffset(.max - 20))
        #expect(fields.allSatisfy { Int($0.offset.rawValue - (.max - 20)) + $0.bytes.count <= byteCount })
    }

    @Test("A field of more than eight bytes has no number")
    func longField() {
        let name = [UInt8](repeating: 0x61, count: 9)
        let bytes = RawSnapshot(name: name).encoded
        let field = SnapshotTableEntry.annotatedFields(in: bytes.span, at: HostOffset(0)).last
        #expect(field?.name == "name" && field?.bytes == name && field?.value == nil)
    }
}
