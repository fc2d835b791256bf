// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Rows of section 7.2 about the header.
extension HostileImage {
    private static func field(
        _ name: String, _ byteCount: Int, at offset: Int, on base: Base = .version3, _ values: UInt64...
    ) -> [HostileImage] {
        values.map { value in
            HostileImage("\(name) 0x\(String(value, radix: 16))", on: base, at: UInt64(offset), naming: name) {
                $0.set(value, byteCount, at: offset)
            }
        }
    }

    static let headers: [HostileImage] =
        field("cluster_bits", 4, at: 20, 0, 8, 22, 63, 64, 0xFFFF_FFFF)
        + field("cluster_bits", 4, at: 20, on: .extended, 13)
        + field("crypt_method", 4, at: 32, 3, 0xFFFF_FFFF)
        + field("refcount_order", 4, at: 96, 7, 64, 0xFFFF_FFFF)
        + field("header_length", 4, at: 100, 0, 72, 103, 513, 0xFFFF_FFFF)
        + field("l1_table_offset", 8, at: 40, 0, 0x601, 1 << 40, 1 << 56, 1 << 63, 1 << 63 - 512, .max - 511)
        + field("refcount_table_offset", 8, at: 48, 0, 0x201, 1 << 40, 1 << 63, .max - 511)
        + field("snapshots_offset", 8, at: 64, 0, 0x1C01, 0x2200, 1 << 40, 1 << 63, .max - 511)
        + [
            HostileImage("an empty file", on: .nothing, .notQCOW2, at: 0, naming: "magic") { _ in },
            HostileImage("another magic", .notQCOW2, at: 0, naming: "magic") { $0.set(0x51, 1, at: 1) },
            HostileImage("seven bytes", .notQCOW2, at: 0, naming: "magic") { $0.bytes.removeSubrange(7...) },
            HostileImage("version 1", .unsupported, at: 4, naming: "version 1") { $0.set(1, 4, at: 4) },
            HostileImage("version 4", .unsupported, at: 4, naming: "version 4") { $0.set(4, 4, at: 4) },
            HostileImage("8 bytes", at: 0, naming: "header") { $0.bytes.removeSubrange(8...) },
            HostileImage("71 bytes", on: .version2, at: 0, naming: "header") { $0.bytes.removeSubrange(71...) },
            HostileImage("103 bytes", at: 0, naming: "header") { $0.bytes.removeSubrange(103...) },
            HostileImage("a file that ends in its header", at: 0, naming: "header") {
                $0.set(200, 4, at: 100)
                $0.bytes.removeSubrange(150...)
            },
            HostileImage("an unaligned snapshots_offset without snapshots", at: 64, naming: "snapshots_offset") {
                $0.set(0, 4, at: 60)
                $0.set(0x1C01, at: 64)
            },
            HostileImage("backing_file_size 0xFFFFFFFF", at: 16, naming: "backing_file_size") {
                $0.set(112, at: 8)
                $0.set(0xFFFF_FFFF, 4, at: 16)
            },
            HostileImage("backing_file_size 1024", on: .clusters4K, at: 16, naming: "backing_file_size") {
                $0.set(112, at: 8)
                $0.set(1024, 4, at: 16)
            },
            HostileImage("a backing file's name past the first cluster", at: 8, naming: "backing_file_offset") {
                $0.set(500, at: 8)
                $0.set(13, 4, at: 16)
            },
        ]
        + [64, 513, 1 << 63, .max].map { (offset: UInt64) in
            HostileImage("backing_file_offset \(offset)", at: 8, naming: "backing_file_offset") {
                $0.set(offset, at: 8)
                $0.set(1, 4, at: 16)
            }
        }

    /// Claims of size, most of them much larger than the file.
    static let headerSizes: [HostileImage] =
        field("l1_size", 4, at: 36, 0, 4_194_305, 0xFFFF_FFFF)
        + field("size", 8, at: 24, 1 << 63, .max, 1 << 62, 128 << 30 + 1)
        + field("refcount_table_clusters", 4, at: 56, 0, 16385, 0xFFFF_FFFF)
        + field("nb_snapshots", 4, at: 60, 65537, 0xFFFF_FFFF)
        + [
            HostileImage("a disk that l1_size can't map", at: 36, naming: "l1_size") { $0.set(32769, at: 24) },
            HostileImage("l1_size 4194304 in a small file", at: 40, naming: "l1_table_offset") {
                $0.set(4_194_304, 4, at: 36)
            },
            HostileImage("refcount tables of 8 MiB in a small file", at: 48, naming: "refcount_table_offset") {
                $0.set(16384, 4, at: 56)
            },
            HostileImage("65536 snapshots over zeros", at: 0x1C48, naming: "snapshot table entry") {
                $0.set(65536, 4, at: 60)
            },
            HostileImage("65536 snapshots over nothing but zeros", at: 0x2200, naming: "snapshot table entry") {
                $0.set(65536, 4, at: 60)
                $0.set(0x2200, at: 64)
                $0.grow(to: 0x2200 + 65536 * 56)
            },
            HostileImage("a disk of 1 EiB in a file of 200 KiB", on: .nothing, at: 40, naming: "l1_table_offset") {
                $0 = WorkedExample.b.image
                $0.set(21, 4, at: 20)
                $0.set(1 << 60, at: 24)
                $0.set(1 << 21, 4, at: 36)
                $0.set(6 << 20, at: 40)
                $0.set(2 << 20, at: 48)
                $0.grow(to: 200 << 10)
            },
        ]
}
