// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import Testing

/// An image that violates an invariant, and what a check must say.
struct Violation: CustomTestStringConvertible, Sendable {
    let testDescription: String
    /// The invariant of section "7.1".
    let invariant: String
    /// The codes that must be found, and no others; with how often each, where that matters.
    let codes: [String: UInt64]
    /// The exit status of `qemu-img check`; with a reason where it differs from ours.
    let theirStatus: Int32
    /// Whether repairing all leaves the image clean.
    let isRepairable: Bool
    private let base: String
    private let change: @Sendable (inout ImageBytes) -> Void

    init(
        _ invariant: String, _ name: String, on base: String = "v3-512", _ codes: [String: UInt64],
        qemu status: Int32, repairable: Bool = false, _ change: @escaping @Sendable (inout ImageBytes) -> Void
    ) {
        testDescription = "\(invariant): \(name)"
        self.invariant = invariant
        self.codes = codes
        self.base = base
        theirStatus = status
        isRepairable = repairable
        self.change = change
    }

    func bytes() throws -> [UInt8] {
        var image = ImageBytes(bytes: try Fixtures.bytes("\(base).qcow2"))
        change(&image)
        return image.bytes
    }

    static let all = headers + tables + snapshotTables + mappings + refcounts + flags

    private static let copied: UInt64 = 1 << 63

    private static let headers: [Violation] = [
        Violation("I-1", "header length 105", ["header-length-odd": 1], qemu: 0) { $0.set(105, 4, at: 100) },
        Violation("I-2", "raw external data without a data file", ["features-contradict": 1], qemu: 1) {
            $0.set(2, at: 88)
        },
        Violation("I-3", "an extension that doesn't fit", ["extension-invalid": 1], qemu: 1) {
            $0.set(0x7777_0000_0189, at: 112)
        },
        Violation("I-3", "two format names", ["extension-duplicate": 1], qemu: 0) {
            $0.setExtensions([(0xE279_2ACA, [0x72]), (0xE279_2ACA, [0x71])], at: 112)
        },
        Violation("I-4", "a backing name past the first cluster", ["header-field-invalid": 1], qemu: 1) {
            $0.set(500, at: 8)
            $0.set(13, 4, at: 16)
        },
        Violation("I-5", "LUKS without its extension", ["encryption-invalid": 1], qemu: 1) { $0.set(2, 4, at: 32) },
        Violation("I-5", "the bitmaps bit without bitmaps", ["bitmaps-missing": 1], qemu: 0, repairable: true) {
            $0.set(1, at: 88)
        },
        Violation(
            "I-6", "two bitmaps in a directory of one", on: "v3-512-bitmaps",
            [
                "bitmaps-invalid": 1, "references-unknown": 1,
            ], qemu: 1
        ) { $0.set(2, 4, at: 120) },
        Violation("I-31", "the dirty bit", ["marked-dirty": 1], qemu: 0, repairable: true) { $0.set(1, at: 72) },
        Violation("I-31", "the corrupt bit", ["marked-corrupt": 1], qemu: 0, repairable: true) { $0.set(2, at: 72) },
    ]

    private static let tables: [Violation] = [
        Violation(
            "I-7", "the L1 table past the end",
            [
                "table-out-of-bounds": 1, "references-unknown": 10,
            ], qemu: 2
        ) { $0.set(0x10000, at: 40) },
        Violation(
            "I-7", "the refcount table past the end",
            [
                "refcount-table-invalid": 1, "refcount-too-low": 15, "copied-flag-l1": 1, "copied-flag-l2": 1,
            ], qemu: 2, repairable: true
        ) {
            $0.set(0x10000, at: 48)
        },
        Violation(
            "I-8", "an L1 entry to the header",
            [
                "l1-entry-invalid": 1, "references-unknown": 9,
            ], qemu: 2
        ) { $0.set(copied, at: 0x600) },
        Violation(
            "I-9", "an L1 entry to the refcount table",
            [
                "tables-overlap": 1, "data-in-metadata": 1, "refcount-too-low": 2, "refcount-too-high": 9,
                "copied-flag-l1": 1, "copied-flag-l2": 1,
            ], qemu: 2
        ) {
            $0.set(0x200, at: 0x600)
        },
        Violation(
            "I-9", "data in a snapshot's L1 table",
            [
                "data-in-metadata": 1, "refcount-too-low": 1, "refcount-too-high": 1, "copied-flag-l2": 0,
                "snapshot-writable": 1,
            ], qemu: 2
        ) { $0.set(copied | 0x1A00, at: 0x1E08) },
        Violation("I-10", "a disk that the L1 table can't map", ["header-field-invalid": 1], qemu: 1) {
            $0.set(32769, at: 24)
        },
        Violation("I-11", "reserved bits in an L1 entry", ["l1-entry-reserved-bits": 1], qemu: 2) {
            $0.set(copied | 1 << 56 | 0x1E00, at: 0x600)
        },
    ]

    private static let snapshotTables: [Violation] = [
        Violation(
            "I-25", "an entry without the disk size",
            [
                "snapshot-entry-incomplete": 1
            ], qemu: 2, repairable: true
        ) {
            // Eight bytes of extra data; ID and name move up.
            $0.set(8, 4, at: 0x1C24)
            $0.set([0x31] + Array("first".utf8), at: 0x1C30)
        },
        Violation(
            "I-25", "an entry with too much extra data",
            [
                "snapshot-table-invalid": 1, "references-unknown": 11,
            ], qemu: 1, repairable: false
        ) { $0.set(2000, 4, at: 0x1C24) },
        Violation(
            "I-26", "a snapshot's L1 table past the end",
            [
                "snapshot-entry-invalid": 1, "references-unknown": 10,
            ], qemu: 2
        ) { $0.set(0x10000, at: 0x1C00) },
        Violation(
            "I-26", "an L1 table for snapshot and disk",
            [
                "active-l1-shared": 1, "snapshot-writable": 0, "refcount-too-low": 0, "refcount-too-high": 0,
                "copied-flag-l1": 0, "copied-flag-l2": 0,
            ], qemu: 2
        ) { $0.set(0x600, at: 0x1C00) },
        Violation(
            "I-10", "an empty entry, which version 2 lets pass", on: "v2-512",
            ["snapshot-l1-too-small": 1, "snapshot-id-unusual": 1], qemu: 0
        ) { $0.set(2, 4, at: 60) },
        Violation("I-27", "a disk size that is no multiple of 512", ["snapshot-disk-size": 1], qemu: 0) {
            $0.set(12289, at: 0x1C30)
        },
        Violation("I-27", "VM state that has no place", ["snapshot-vm-state": 1], qemu: 0) {
            $0.set(100, at: 0x1C28)
        },
        Violation("I-28", "a name that isn't UTF-8", ["snapshot-name-unusual": 1], qemu: 0) {
            $0.set(0xFF, 1, at: 0x1C42)
        },
        Violation("I-28", "an ID with a zero byte", ["snapshot-id-unusual": 1], qemu: 0) { $0.set(0, 1, at: 0x1C40) },
        Violation("I-29", "a disk that ends before its L1 entries", ["active-vm-state": 1], qemu: 0) {
            $0.set(0, at: 24)
        },
    ]

    private static let mappings: [Violation] = [
        Violation("I-12", "reserved bits in an L2 entry", ["l2-entry-reserved-bits": 1], qemu: 2) {
            $0.set(copied | 1 << 56 | 0x2000, at: 0x1E08)
        },
        Violation("I-12", "a zero flag in version 2", on: "v2-512", ["l2-entry-zero-bit": 1], qemu: 0) {
            $0.set(
                $0.number(at: Int($0.number(at: Int($0.number(at: 40))) & 0xFFFF_FF00) + 8) | 1,
                at: Int($0.number(at: Int($0.number(at: 40))) & 0xFFFF_FF00) + 8)
        },
        Violation("I-12", "a zero flag beside subclusters", on: "v3-16k-extended", ["l2-entry-zero-bit": 1], qemu: 0) {
            $0.set(copied | 0x40001, at: 0x3C010)
        },
        Violation(
            "I-7", "an unaligned L2 entry", on: "v3-4k", ["l2-entry-misaligned": 1, "refcount-too-low": 1], qemu: 2
        ) {
            $0.set($0.number(at: 0xF008) | 0x200, at: 0xF008)
        },
        Violation("I-7", "an L2 entry past the end", ["l2-entry-past-end": 1, "refcount-too-high": 1], qemu: 2) {
            $0.set(copied | 0x10000, at: 0x1E08)
        },
        Violation("I-13", "a compressed cluster with the copied flag", ["copied-flag-compressed": 1], qemu: 2) {
            $0.set(0xC000_0000_0000_1200, at: 0x1E40)
        },
        Violation(
            "I-13", "a compressed cluster beyond 56 bits",
            [
                "compressed-entry-invalid": 1, "refcount-too-high": 1,
            ], qemu: 2
        ) { $0.set(0x4200_0000_0000_1200, at: 0x1E40) },
        Violation(
            "I-13", "a compressed cluster past the end",
            [
                "l2-entry-past-end": 1, "refcount-too-high": 1,
            ], qemu: 2
        ) { $0.set(0x4000_0000_0001_2000, at: 0x1E40) },
        Violation(
            "I-13", "an entry with all bits set",
            ["compressed-entry-invalid": 1, "copied-flag-compressed": 1, "refcount-too-high": 1], qemu: 2
        ) { $0.set(.max, at: 0x1E10) },
        Violation(
            "I-14", "a subcluster that is allocated and zero", on: "v3-16k-extended",
            [
                "subclusters-invalid": 1
            ], qemu: 2
        ) { $0.set(0x1_FFFF_FFFF, at: 0x3C018) },
        Violation(
            "I-15", "two L1 entries for one L2 table",
            [
                "l2-table-twice-in-tree": 1, "active-vm-state": 1,
            ], qemu: 0
        ) {
            $0.set(2, 4, at: 36)
            $0.set(0x1E00, at: 0x600)
            $0.set(0x1E00, at: 0x608)
            // Everything below counts once more, and no flag is set.
            $0.set(0x2000, at: 0x1E08)
            for (cluster, count) in [(15, 2), (16, 2), (5, 3), (7, 3), (8, 3), (9, 3), (10, 3), (11, 3), (12, 3)] {
                $0.set(UInt64(count), 2, at: 0x400 + cluster * 2)
            }
        },
        Violation("I-16", "a cluster mapped twice", ["cluster-mapped-twice": 1], qemu: 0) {
            $0.set(0x2000, at: 0x1E08)
            $0.set(0x2000, at: 0x1E20)
            $0.set(2, 2, at: 0x400 + 16 * 2)
        },
        Violation(
            "I-17", "a data file with internal clusters",
            [
                "data-file-contradicted": 0, "refcount-too-high": 0,
            ], qemu: 1
        ) { $0.set(4, at: 72) },
    ]

    private static let refcounts: [Violation] = [
        Violation(
            "I-18", "a refcount that is too low",
            [
                "refcount-too-low": 1, "copied-flag-l2": 1,
            ], qemu: 2, repairable: true
        ) {
            $0.set(1, 2, at: 0x400 + 5 * 2)
        },
        Violation("I-18", "a leaked cluster", ["refcount-too-high": 1], qemu: 3, repairable: true) {
            $0.grow(to: 0x2400)
            $0.set(1, 2, at: 0x400 + 17 * 2)
        },
        Violation("I-18", "a leak past the end of the file", ["refcount-too-high": 1], qemu: 0, repairable: true) {
            $0.set(1, 2, at: 0x400 + 40 * 2)
        },
        Violation(
            "I-18", "refcounts that are all 0",
            [
                "refcount-too-low": 17, "copied-flag-l1": 1, "copied-flag-l2": 1,
            ], qemu: 2, repairable: true
        ) {
            $0.set([UInt8](repeating: 0, count: 512), at: 0x400)
        },
        Violation(
            "I-19", "reserved bits in the refcount table",
            [
                "refcount-table-entry-invalid": 1
            ], qemu: 2, repairable: true
        ) { $0.set(0x401, at: 0x200) },
        Violation(
            "I-19", "a refcount block past the end",
            [
                "refcount-table-entry-invalid": 1, "refcount-too-low": 16, "copied-flag-l1": 1, "copied-flag-l2": 1,
            ], qemu: 2, repairable: true
        ) { $0.set(0x20000, at: 0x200) },
        Violation(
            "I-19", "a refcount block that is listed twice",
            [
                "refcount-block-twice": 1
            ], qemu: 2, repairable: true
        ) { $0.set(0x400, at: 0x208) },
        Violation(
            "I-20", "more references than two bits can count", on: "v3-512-refcount2",
            [
                "refcount-overflow": 1, "cluster-mapped-twice": 0, "refcount-too-low": 0, "refcount-too-high": 0,
            ], qemu: 2
        ) {
            let l2Table = Int($0.number(at: Int($0.number(at: 40))) & 0xFFFF_FF00)
            for entry in 16..<20 { $0.set(0xA00, at: l2Table + entry * 8) }
        },
    ]

    private static let flags: [Violation] = [
        Violation("I-21", "an L1 entry without the copied flag", ["copied-flag-l1": 1], qemu: 2, repairable: true) {
            $0.set(0x1E00, at: 0x600)
        },
        Violation("I-22", "an L2 entry without the copied flag", ["copied-flag-l2": 1], qemu: 2, repairable: true) {
            $0.set(0x2000, at: 0x1E08)
        },
        Violation(
            "I-23", "an unallocated entry with the copied flag",
            [
                "copied-flag-unallocated": 1
            ], qemu: 0, repairable: true
        ) { $0.set(copied, at: 0x1E00 + 7 * 8) },
        Violation(
            "I-24", "a copied flag on a snapshot's cluster",
            [
                "copied-flag-l2": 1, "snapshot-writable": 1,
            ], qemu: 2, repairable: true
        ) { $0.set(copied | 0xA00, at: 0x1E00) },
        Violation(
            "I-24", "a copied flag on a snapshot's cluster that counts once",
            [
                "refcount-too-low": 1, "snapshot-writable": 1,
            ], qemu: 2, repairable: true
        ) {
            $0.set(copied | 0xA00, at: 0x1E00)
            $0.set(1, 2, at: 0x400 + 5 * 2)
        },
    ]
}
