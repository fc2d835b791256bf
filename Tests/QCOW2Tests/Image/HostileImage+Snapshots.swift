// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The snapshot table: section 4.1.
extension HostileImage {
    private static let table = 0x1C00

    private static func entry(
        _ name: String, _ byteCount: Int, at offset: Int, naming field: String, from place: Int, _ values: UInt64...
    ) -> [HostileImage] {
        values.map { value in
            HostileImage("\(name) 0x\(String(value, radix: 16))", at: UInt64(table + place), naming: field) {
                $0.set(value, byteCount, at: table + offset)
            }
        }
    }

    static let snapshots: [HostileImage] =
        entry("E", 4, at: 36, naming: "extra_data_size", from: 36, 1025, 0xFFFF_FFFF)
        + entry("id_str_size", 2, at: 12, naming: "snapshot table entry", from: 0, 0xFFFF)
        + entry("name_size", 2, at: 14, naming: "snapshot table entry", from: 0, 0xFFFF)
        + entry("a snapshot's l1_size", 4, at: 8, naming: "l1_size", from: 8, 4_194_305, 0xFFFF_FFFF)
        + entry("a snapshot's l1_size", 4, at: 8, naming: "l1_table_offset of a snapshot", from: 0, 4_194_304, 1 << 20)
        + entry(
            "a snapshot's l1_table_offset", 8, at: 0, naming: "l1_table_offset", from: 0, 0, 0x1A01, 0x2200, 1 << 40,
            1 << 63, .max - 511)
        + [
            HostileImage("a file that ends in its snapshot table", at: 0x1C00, naming: "snapshot table entry") {
                $0.bytes.removeSubrange(0x1C45...)
            },
            HostileImage("a file that ends before its snapshot table", at: 64, naming: "snapshots_offset") {
                $0.bytes.removeSubrange(0x1C00...)
            },
            HostileImage("a second entry that isn't there", at: 0x1C48, naming: "snapshot table entry") {
                $0.set(2, 4, at: 60)
            },
            HostileImage("an odd disk size", refused: .apply, at: nil, naming: "disk size") {
                $0.set(0x2FFF, at: table + 48)
            },
            HostileImage("a disk size of 2^60", refused: .apply, at: nil, naming: "disk size") {
                $0.set(1 << 60, at: table + 48)
            },
            HostileImage("a disk size of 2^64 - 512", refused: .apply, at: nil, naming: "disk size") {
                $0.set(.max - 511, at: table + 48)
            },
            HostileImage("a snapshot on the active L1 table", refused: .create, at: 0x600, naming: "L1 table") {
                $0.set(0x600, at: table)
            },
            HostileImage("a snapshot's L1 on the refcount table", refused: .delete, at: 0x200, naming: "refcount table")
            { $0.set(0x200, at: table) },
            HostileImage("a snapshot's L1 on the snapshot table", refused: .apply, at: 0x1C00, naming: "L1 table of") {
                $0.set(0x1C00, at: table)
            },
            HostileImage(
                "a snapshot table on the refcount table", refused: .create, at: 0x200, naming: "snapshot table"
            ) {
                $0.set(0x200, at: 64)
                $0.set(RawSnapshot(l1EntryCount: 0).encoded, at: 0x200)
            },
            HostileImage("65536 snapshots with the same L1", refused: .create, at: 0x1A00, naming: "overlaps") {
                $0.set(65536, 4, at: 60)
                $0.set(0x2200, at: 64)
                let entry = RawSnapshot(l1TableOffset: 0x1A00, l1EntryCount: 1, extra: RawSnapshot.extra(0, 0x3000))
                let padded = entry.encoded + [UInt8](repeating: 0, count: -entry.encoded.count & 7)
                $0.bytes.append(contentsOf: (0..<65536).lazy.map { _ in padded }.joined())
            },
        ]
}
