// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Refcounts and bitmaps: sections 3.1 and 5.1.
extension HostileImage {
    private static func entry(
        _ name: String, _ value: UInt64, on base: Base = .version3, entryAt place: Int = 0x200,
        refused operation: Operation = .create, at offset: UInt64, naming field: String = "refcount table entry"
    ) -> HostileImage {
        HostileImage("refcount table entry \(name)", on: base, refused: operation, at: offset, naming: field) {
            $0.set(value, at: place)
        }
    }

    static let refcounts: [HostileImage] = [
        entry("with reserved bit 0", 0x401, at: 0x200),
        entry("with reserved bit 8", 0x500, refused: .delete, at: 0x200),
        entry("with bit 63", 1 << 63 | 0x400, refused: .apply, at: 0x200),
        entry("past the end", 0x2200, refused: .rename, at: 0x200),
        entry("far past the end", 1 << 40, at: 0x200),
        entry("unaligned", 0x2200, on: .clusters4K, entryAt: 0x1000, at: 0x1000),
        entry("twice", 0x400, entryAt: 0x208, at: 0x208, naming: "listed twice"),
        entry("to its own table", 0x200, at: 0x200, naming: "refcount table"),
        entry("to the L1 table", 0x600, at: 0x600, naming: "active L1 table"),
        entry("to an L2 table", 0x1E00, entryAt: 0x208, at: 0x1E00, naming: "refcount block"),
        entry("that is missing", 0, at: 0, naming: "refcount 0"),
        HostileImage("refcounts that are all 0", refused: .create, at: 0, naming: "refcount 0") {
            $0.set([UInt8](repeating: 0, count: 512), at: 0x400)
        },
        HostileImage("a live data cluster with refcount 0", refused: .create, at: 0x2000, naming: "refcount 0") {
            $0.set(0, 2, at: 0x400 + 16 * 2)
        },
        HostileImage("a live L2 table with refcount 0", refused: .delete, at: 0x1E00, naming: "refcount 0") {
            $0.set(0, 2, at: 0x400 + 15 * 2)
        },
        HostileImage("a snapshot's L1 table with refcount 0", refused: .apply, at: 0x1A00, naming: "refcount 0") {
            $0.set(0, 2, at: 0x400 + 13 * 2)
        },
        HostileImage("a shared cluster with refcount 1", refused: .rename, at: 0xA00, naming: "refcount 1 but 2") {
            $0.set(1, 2, at: 0x400 + 5 * 2)
        },
        HostileImage(
            "a leaked refcount that is as large as can be", refused: .create, .limitExceeded, at: 0xA00,
            naming: "65535 references"
        ) { $0.set(0xFFFF, 2, at: 0x400 + 5 * 2) },
        HostileImage(
            "an L2 table's refcount of 2^64 - 1", on: .refcount64, refused: .create, .limitExceeded, at: 0x1E00,
            naming: "references"
        ) { $0.set(.max, at: 0x400 + 15 * 8) },
        HostileImage(
            "a data cluster's refcount of 2^64 - 1", on: .refcount64, refused: .create, .limitExceeded, at: 0xA00,
            naming: "references"
        ) { $0.set(.max, at: 0x400 + 5 * 8) },
    ]

    private static func bitmaps(
        _ name: String, _ value: UInt64, _ byteCount: Int, at place: Int, reported offset: UInt64? = nil,
        naming field: String
    ) -> HostileImage {
        HostileImage(name, on: .bitmaps, refused: .create, at: offset ?? UInt64(place), naming: field) {
            $0.set(value, byteCount, at: place)
        }
    }

    static let bitmaps: [HostileImage] = [
        bitmaps("nb_bitmaps 0", 0, 4, at: 120, naming: "nb_bitmaps"),
        bitmaps("nb_bitmaps 65536", 65536, 4, at: 120, naming: "nb_bitmaps"),
        bitmaps("nb_bitmaps 2", 2, 4, at: 120, reported: 0x1C00, naming: "nb_bitmaps"),
        bitmaps("reserved bytes of the bitmaps extension", 1, 4, at: 124, naming: "reserved"),
        bitmaps("bitmap_directory_size 0", 0, 8, at: 128, naming: "bitmap_directory_size"),
        bitmaps("bitmap_directory_size 2^64 - 1", .max, 8, at: 128, naming: "bitmap_directory_size"),
        bitmaps("a directory of 64 MiB", 1024 * 65535, 8, at: 128, reported: 112, naming: "bitmap directory"),
        bitmaps("a directory that is cut off", 24, 8, at: 128, reported: 0x1C00, naming: "bitmap directory entry"),
        bitmaps("an unaligned directory", 0x1C01, 8, at: 136, naming: "bitmap_directory_offset"),
        bitmaps("a directory in the header", 0, 8, at: 136, naming: "bitmap_directory_offset"),
        bitmaps("a directory past the end", 1 << 40, 8, at: 136, reported: 112, naming: "bitmap directory"),
        bitmaps("bitmap_table_offset 0", 0, 8, at: 0x1C00, naming: "bitmap_table_offset"),
        bitmaps("an unaligned bitmap table", 0x1A01, 8, at: 0x1C00, naming: "bitmap_table_offset"),
        bitmaps("a bitmap table past the end", 1 << 40, 8, at: 0x1C00, naming: "bitmap table"),
        bitmaps("a bitmap table on its directory", 0x1C00, 8, at: 0x1C00, naming: "overlaps"),
        bitmaps("a bitmap table on the L1 table", 0x600, 8, at: 0x1C00, reported: 0x600, naming: "overlaps"),
        bitmaps("bitmap_table_size 0", 0, 4, at: 0x1C08, naming: "bitmap_table_size"),
        bitmaps("bitmap_table_size 2^32 - 1", 0xFFFF_FFFF, 4, at: 0x1C08, naming: "bitmap_table_size"),
        bitmaps("bitmap_table_size 2^20", 1 << 20, 4, at: 0x1C08, reported: 0x1C00, naming: "bitmap table"),
        bitmaps("reserved bitmap flags", 8, 4, at: 0x1C0C, naming: "bitmap flags"),
        bitmaps("bitmap type 2", 2, 1, at: 0x1C10, naming: "bitmap type"),
        bitmaps("granularity_bits 64", 64, 1, at: 0x1C11, naming: "granularity_bits"),
        bitmaps("granularity_bits 32", 32, 1, at: 0x1C11, naming: "granularity_bits"),
        bitmaps("granularity_bits 8", 8, 1, at: 0x1C11, naming: "granularity_bits"),
        bitmaps("a bitmap without a name", 0, 2, at: 0x1C12, naming: "name_size"),
        bitmaps("a bitmap's name of 1024 bytes", 1024, 2, at: 0x1C12, naming: "name_size"),
        bitmaps("a bitmap's name that is cut off", 9, 2, at: 0x1C12, reported: 0x1C00, naming: "directory entry"),
        bitmaps(
            "bitmap extra data of 0xFFFFFFFF bytes", 0xFFFF_FFFF, 4, at: 0x1C14, reported: 0x1C00,
            naming: "bitmap directory entry"),
        bitmaps("a bitmap table entry with reserved bits", 2, 8, at: 0x1A00, naming: "bitmap table entry"),
        bitmaps("a bitmap table entry with bit 0 and an offset", 0x2001, 8, at: 0x1A00, naming: "bitmap table entry"),
        bitmaps("bitmap data past the end", 1 << 40, 8, at: 0x1A00, naming: "bitmap data"),
        bitmaps("bitmap data on the L1 table", 0x600, 8, at: 0x1A00, reported: 0x600, naming: "overlaps"),
        bitmaps("bitmap data on guest data", 0x1800, 8, at: 0x1A00, reported: 0x1800, naming: "bitmap data"),
    ]
}
