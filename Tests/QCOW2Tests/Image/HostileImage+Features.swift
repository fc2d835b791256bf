// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Features, extensions and encryption: sections 1.2 to 1.5 and 5.2.
extension HostileImage {
    private static func set(_ features: UInt64) -> @Sendable (inout ImageBytes) -> Void {
        { $0.set(features, at: 72) }
    }

    private static func nameTable(_ name: String) -> (type: UInt32, data: [UInt8]) {
        (0x6803_F857, [0, 7] + Array(name.utf8) + [UInt8](repeating: 0, count: 46 - name.utf8.count))
    }

    static let features: [HostileImage] =
        [Operation.create, .apply, .delete, .rename].flatMap { operation in
            [
                HostileImage(
                    "the dirty bit", refused: operation, .needsRepair, at: 72, naming: "dirty", set(1)),
                HostileImage(
                    "the corrupt bit", refused: operation, .needsRepair, at: 72, naming: "corrupt", set(2)),
                HostileImage(
                    "both bits", refused: operation, .needsRepair, at: 72, naming: "corrupt", set(3)),
                HostileImage(
                    "an external data file", refused: operation, .unsupported, at: 72, naming: "external data file",
                    set(4)),
            ]
        } + [
            HostileImage(
                "an external data file", refused: .read, .unsupported, at: nil, naming: "external data file", set(4)),
            HostileImage("unknown bit 5", .unsupported, at: 72, naming: "bit 5", set(1 << 5)),
            HostileImage("unknown bit 63", .unsupported, at: 72, naming: "bit 63", set(1 << 63)),
            HostileImage("two unknown bits", .unsupported, at: 72, naming: "bit 6, bit 7", set(0xC0)),
            HostileImage("an unknown bit with a name", .unsupported, at: 72, naming: "bit 6, 'time travel'") {
                $0.set(0xC0, at: 72)
                $0.setExtensions([nameTable("time travel")], at: 112)
            },
            HostileImage("a name with control characters", .unsupported, at: 72, naming: "'\\u{1b}[31m\\u{a}red'") {
                $0.set(0x80, at: 72)
                $0.setExtensions([nameTable("\u{1B}[31m\nred")], at: 112)
            },
            HostileImage("a compression type without its bit", at: 104, naming: "compression_type") {
                $0.set(1, 1, at: 104)
            },
            HostileImage("the compression bit without a type", at: 104, naming: "compression_type", set(8)),
            HostileImage("the compression bit in a header without the field", at: 104, naming: "compression_type") {
                $0.set(8, at: 72)
                $0.set(104, 4, at: 100)
            },
            HostileImage("compression type 2", .unsupported, at: 104, naming: "compression type 2") {
                $0.set(8, at: 72)
                $0.set(2, 1, at: 104)
            },
            HostileImage("extended L2 entries with small clusters", at: 20, naming: "cluster_bits", set(16)),
        ]

    static let extensions: [HostileImage] = [
        HostileImage("an extension of 0xFFFFFFFF bytes", at: 112, naming: "header extension length") {
            $0.set(0x7777_FFFF_FFFF, at: 112)
        },
        HostileImage("an extension of 0xFFFFFFFF bytes in a tiny file", at: 112, naming: "header extension length") {
            $0.set(0x7777_FFFF_FFFF, at: 112)
            $0.bytes.removeSubrange(120...)
        },
        HostileImage("an extension one byte too long", at: 112, naming: "header extension length") {
            $0.set(0x7777_0000_0189, at: 112)
        },
        HostileImage("an END record that is too long", at: 112, naming: "header extension length") {
            $0.set(0x189, at: 112)
        },
        HostileImage("an extension that reaches into the backing file's name", at: 112, naming: "extension length") {
            $0.set(0x7777_0000_0009, at: 112)
            $0.set(128, at: 8)
            $0.set(1, 4, at: 16)
        },
        HostileImage("stray bytes in front of the backing file's name", at: 120, naming: "header extension") {
            $0.set(0x7777_0000_0000, at: 112)
            $0.set(127, at: 8)
            $0.set(1, 4, at: 16)
        },
        HostileImage("two bitmaps extensions", on: .bitmaps, at: 144, naming: "0x23852875") {
            $0.set(0x2385_2875_0000_0018, at: 144)
            $0.set(0, at: 176)
        },
        HostileImage("a bitmaps extension of 16 bytes", on: .bitmaps, at: 112, naming: "header extension length") {
            $0.set(16, 4, at: 116)
        },
    ]

    private static func luks(_ region: UInt64, _ byteCount: UInt64) -> @Sendable (inout ImageBytes) -> Void {
        {
            $0.set(2, 4, at: 32)
            $0.setExtensions([(0x0537_BE77, RawSnapshot.extra(region, byteCount))], at: 112)
        }
    }

    static let encryption: [HostileImage] = [
        HostileImage("LUKS without its extension", at: 32, naming: "crypt_method") { $0.set(2, 4, at: 32) },
        HostileImage("a LUKS extension without encryption", at: 32, naming: "crypt_method") {
            luks(0x2200, 512)(&$0)
            $0.set(0, 4, at: 32)
        },
        HostileImage("an encryption extension of 8 bytes", at: 112, naming: "header extension length") {
            luks(0x2200, 512)(&$0)
            $0.set(8, 4, at: 116)
        },
        HostileImage(
            "an encryption header in the image's header", at: 112, naming: "encryption header",
            luks(0, 512)),
        HostileImage(
            "an unaligned encryption header", at: 112, naming: "encryption header", luks(0x2001, 512)),
        HostileImage(
            "an encryption header past the end", at: 112, naming: "encryption header",
            luks(1 << 40, 512)),
        HostileImage(
            "an encryption header of 2^64 - 1 bytes", at: 112, naming: "encryption header",
            luks(0x2000, .max)),
        HostileImage(
            "an encryption header over the L1 table", at: 0x600, naming: "LUKS header",
            luks(0x600, 512)),
        HostileImage("encrypted data", refused: .read, .unsupported, at: nil, naming: "encrypted") {
            $0.set(1, 4, at: 32)
        },
    ]
}
