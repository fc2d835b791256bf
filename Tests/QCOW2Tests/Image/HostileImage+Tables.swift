// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// L1 and L2 tables: invariants I-8 to I-16.
extension HostileImage {
    private static func l1(
        _ name: String, _ value: UInt64, on base: Base = .version3, entryAt place: Int = 0x600,
        refused operation: Operation = .create, at offset: UInt64, naming field: String
    ) -> HostileImage {
        HostileImage("L1 entry \(name)", on: base, refused: operation, at: offset, naming: field) {
            $0.set(value, at: place)
        }
    }

    private static let copied: UInt64 = 1 << 63

    static let l1Tables: [HostileImage] = [
        l1("to the header", copied, at: 0x600, naming: "L1 entry 0"),
        l1("to the refcount table", copied | 0x200, at: 0x200, naming: "refcount table"),
        l1("to a refcount block", copied | 0x400, at: 0x400, naming: "L2 entry"),
        l1("to its own table", copied | 0x600, at: 0x600, naming: "active L1 table"),
        l1("to a snapshot's L1 table", copied | 0x1A00, at: 0x1A00, naming: "L1 table of snapshot '1'"),
        l1("to the snapshot table", copied | 0x1C00, at: 0x1C08, naming: "L2 entry"),
        l1("past the end", copied | 0x2200, at: 0x600, naming: "L1 entry 0"),
        l1("far past the end", copied | 1 << 40, at: 0x600, naming: "L1 entry 0"),
        l1("at 2^55", copied | 1 << 55, at: 0x600, naming: "L1 entry 0"),
        l1("with reserved bit 0", copied | 0x1E01, at: 0x600, naming: "reserved bits"),
        l1("with reserved bit 8", copied | 0x1F00, at: 0x600, naming: "reserved bits"),
        l1("with reserved bit 56", copied | 1 << 56 | 0x1E00, at: 0x600, naming: "reserved bits"),
        l1("with reserved bit 62", copied | 1 << 62 | 0x1E00, at: 0x600, naming: "reserved bits"),
        l1("unaligned", copied | 0xF200, on: .clusters4K, entryAt: 0x3000, at: 0x3000, naming: "L1 entry 0"),
        l1("of a snapshot, to the header", copied, entryAt: 0x1A00, refused: .apply, at: 0x1A00, naming: "L1 entry 0"),
        l1("of a snapshot, past the end", 1 << 40, entryAt: 0x1A00, refused: .delete, at: 0x1A00, naming: "L1 entry 0"),
        l1("of a snapshot, reserved", 0x801, entryAt: 0x1A00, refused: .rename, at: 0x1A00, naming: "L1 entry 0"),
        l1("past the end", 1 << 40, refused: .read, at: 0x600, naming: "L1 entry 0"),
        l1("with reserved bits", 0x1E01, refused: .read, at: 0x600, naming: "L1 entry 0"),
        l1("unaligned", 0xF200, on: .clusters4K, entryAt: 0x3000, refused: .read, at: 0x3000, naming: "L1 entry 0"),
        l1("past the end", 1 << 40, entryAt: 0x1A00, refused: .readSnapshot, at: 0x1A00, naming: "L1 entry 0"),
        HostileImage("two L1 entries for one L2 table", refused: .create, at: 0xA00, naming: "references") {
            $0.set(2, 4, at: 36)
            $0.set(copied | 0x1E00, at: 0x608)
        },
    ]

    private static func l2(
        _ name: String, _ value: UInt64, on base: Base = .version3, entryAt place: Int = 0x1E08,
        refused operation: Operation = .create, at offset: UInt64, naming field: String
    ) -> HostileImage {
        HostileImage("L2 entry \(name)", on: base, refused: operation, at: offset, naming: field) {
            $0.set(value, at: place)
        }
    }

    static let l2Tables: [HostileImage] =
        [
            l2("to the refcount table", copied | 0x200, at: 0x200, naming: "refcount table"),
            l2("to a refcount block", copied | 0x400, at: 0x400, naming: "refcount block"),
            l2("to the active L1 table", copied | 0x600, at: 0x600, naming: "active L1 table"),
            l2("to a snapshot's L1 table", copied | 0x1A00, at: 0x1A00, naming: "L1 table of snapshot '1'"),
            l2("to the snapshot table", copied | 0x1C00, at: 0x1C00, naming: "snapshot table"),
            l2("to its own table", copied | 0x1E00, at: 0x1E00, naming: "L2 table"),
            l2("to another L2 table", copied | 0x800, at: 0x800, naming: "L2 table"),
            l2("past the end", copied | 0x2200, at: 0x1E08, naming: "L2 entry"),
            l2("far past the end", copied | 1 << 40, at: 0x1E08, naming: "L2 entry"),
            l2("at 2^55", copied | 1 << 55, at: 0x1E08, naming: "L2 entry"),
            l2("past the end, zero", copied | 1 << 40 | 1, at: 0x1E08, naming: "L2 entry"),
            l2("past the end", 1 << 40, refused: .read, at: 0x1E08, naming: "L2 entry"),
            l2("unaligned", copied | 0x10200, on: .clusters4K, entryAt: 0xF008, at: 0xF008, naming: "L2 entry"),
            l2("unaligned", 0x10200, on: .clusters4K, entryAt: 0xF008, refused: .read, at: 0xF008, naming: "L2 entry"),
            l2("with bit 0 in version 2", 1, on: .version2, at: 0x1E08, naming: "bit 0"),
            l2("with bit 0 in version 2", 0x2001, on: .version2, refused: .read, at: 0x1E08, naming: "bit 0"),
            l2("of a snapshot, past the end", 1 << 40, entryAt: 0x808, refused: .apply, at: 0x808, naming: "L2 entry"),
            l2("to data with one reference", 0x2000, entryAt: 0x1E10, at: 0x2000, naming: "refcount 1 but 2"),
        ]
        + [1, 8, 56, 61].flatMap { (bit: UInt64) in
            [Operation.create, .delete, .read].map {
                l2("with reserved bit \(bit)", 0x2000 | 1 << bit, refused: $0, at: 0x1E08, naming: "reserved bits")
            }
        }

    static let compressed: [HostileImage] =
        [Operation.create, .read].flatMap { operation in
            [
                l2("compressed and copied", 0xC000_0000_0000_1200, refused: operation, at: 0x1E08, naming: "copied"),
                l2("compressed at 2^56", 0x4100_0000_0000_1200, refused: operation, at: 0x1E08, naming: "56 bits"),
                l2("compressed at 2^60", 0x5000_0000_0000_1200, refused: operation, at: 0x1E08, naming: "56 bits"),
                l2("compressed past the end", 1 << 62 | 1 << 40, refused: operation, at: 0x1E08, naming: "L2 entry"),
                l2(
                    "compressed, ending past the end", 0x6000_0000_0000_2100, refused: operation, at: 0x1E08,
                    naming: "L2 entry"),
            ]
        } + [
            l2("compressed in the header", 1 << 62 | 0x10, at: 0, naming: "header"),
            l2("compressed in the L1 table", 1 << 62 | 0x610, at: 0x600, naming: "active L1 table"),
            HostileImage("garbage that doesn't inflate", refused: .read, at: 0x1200, naming: "compressed cluster") {
                $0.set(.max, at: 0x1200)
            },
            HostileImage("a stream that is too short", refused: .read, at: 0x1200, naming: "compressed cluster") {
                $0.set([0x03, 0x00], at: 0x1200)
            },
        ]

    static let extendedEntries: [HostileImage] = [Operation.create, .read].flatMap { operation in
        [
            HostileImage(
                "a subcluster both allocated and zero", on: .extended, refused: operation, at: 0x3C010,
                naming: "both allocated and zero"
            ) { $0.set(0x0000_0001_FFFF_FFFF, at: 0x3C018) },
            HostileImage(
                "subclusters without a host cluster", on: .extended, refused: operation, at: 0x3C050,
                naming: "without a host cluster"
            ) { $0.set(1, at: 0x3C058) },
            HostileImage(
                "a compressed cluster with subclusters", on: .extended, refused: operation, at: 0x3C080,
                naming: "compressed"
            ) { $0.set(1 << 32, at: 0x3C088) },
            HostileImage("the zero flag", on: .extended, refused: operation, at: 0x3C010, naming: "bit 0") {
                $0.set(0x8000_0000_0004_0001, at: 0x3C010)
            },
        ]
    }
}
