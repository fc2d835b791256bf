// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import Testing

/// An image with something to be found in it.
struct InspectionCase: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let code: String
    let severity: Finding.Severity
    let offset: UInt64?
    /// How many snapshots are still shown.
    let snapshotCount: Int
    private let base: HostileImage.Base
    private let change: @Sendable (inout ImageBytes) -> Void

    init(
        _ code: String, _ name: String = "", _ severity: Finding.Severity = .notice,
        on base: HostileImage.Base =
            .version3, at offset: UInt64?, snapshots: Int = 1,
        _ change: @escaping @Sendable (inout ImageBytes) -> Void = { _ in }
    ) {
        testDescription = name.isEmpty ? code : "\(code): \(name)"
        self.code = code
        self.severity = severity
        self.base = base
        self.offset = offset
        snapshotCount = snapshots
        self.change = change
    }

    func bytes() throws -> [UInt8] {
        var image = ImageBytes(bytes: base == .nothing ? [] : try Fixtures.bytes("\(base.rawValue).qcow2"))
        change(&image)
        return image.bytes
    }

    /// An image with a snapshot table of its own.
    static func snapshots(
        _ code: String, _ name: String = "", _ severity: Finding.Severity = .notice, entry: Int? = 0,
        _ entries: RawSnapshot...
    ) -> InspectionCase {
        var builder = ImageBuilder(size: 8192)
        builder.fill(2)
        builder.setSnapshots(entries)
        let image = builder.finished()
        let table = Int(image.number(at: 64))
        let starts = entries.indices.map { index in
            (RawSnapshot.table(Array(entries[..<index])).count + 7) / 8 * 8 + table
        }
        return InspectionCase(
            code, name, severity, on: .nothing, at: entry.map { UInt64(starts[$0]) }, snapshots: entries.count
        ) { $0 = image }
    }
}

extension RawSnapshot {
    static func named(_ id: String, _ name: String, seconds: UInt64 = 1_700_000_000) -> RawSnapshot {
        RawSnapshot(id: Array(id.utf8), name: Array(name.utf8), seconds: seconds, extra: extra(0, 0, .max))
    }
}

extension InspectionCase {
    private static func field(
        _ name: String, _ value: UInt64, _ byteCount: Int, at offset: Int, snapshots: Int = 1
    ) -> InspectionCase {
        InspectionCase("header-field-invalid", name, .corruption, at: UInt64(offset), snapshots: snapshots) {
            $0.set(value, byteCount, at: offset)
        }
    }

    static let headers: [InspectionCase] = [
        InspectionCase("not-qcow2", "an overwritten magic number", .corruption, at: 0) { $0.set(0, 4, at: 0) },
        InspectionCase("not-qcow2", "text", .corruption, on: .nothing, at: 0, snapshots: 0) {
            $0.set(Array("QFI, but text\n".utf8), at: 0)
        },
        InspectionCase("version-unknown", "version 4", .unsupported, at: 4) { $0.set(4, 4, at: 4) },
        InspectionCase("version-unknown", "version 1", .unsupported, at: 4, snapshots: 0) { $0.set(1, 4, at: 4) },
        InspectionCase("compression-type-unknown", "", .unsupported, at: 104) { $0.set(7, 1, at: 104) },
        InspectionCase("header-truncated", "6 bytes", .corruption, at: 0, snapshots: 0) {
            $0.bytes.removeSubrange(6...)
        },
        InspectionCase("header-truncated", "100 bytes", .corruption, at: 0, snapshots: 0) {
            $0.bytes.removeSubrange(100...)
        },
        field("cluster_bits", 40, 4, at: 20),
        field("crypt_method", 3, 4, at: 32),
        field("refcount_order", 7, 4, at: 96),
        field("header_length", 8, 4, at: 100),
        field("size", .max, 8, at: 24),
        InspectionCase("snapshot-table-invalid", "nb_snapshots", .corruption, at: 60) {
            $0.set(0xFFFF_FFFF, 4, at: 60)
        },
        field("compression_type", 1, 1, at: 104),
        field("l1_size", 0, 4, at: 36),
        InspectionCase("refcount-table-invalid", "refcount_table_clusters", .corruption, at: 56) {
            $0.set(0xFFFF_FFFF, 4, at: 56)
        },
        InspectionCase("header-fields-unknown", at: 113) {
            $0.set(120, 4, at: 100)
            $0.set(7, 1, at: 113)
        },
        InspectionCase("disk-size-odd", at: 24) { $0.set(12287, at: 24) },
        InspectionCase("incompatible-feature-unknown", "", .unsupported, at: 72) { $0.set(1 << 63, at: 72) },
        InspectionCase("compatible-feature-unknown", at: 80) { $0.set(1 << 5, at: 80) },
        InspectionCase("autoclear-feature-unknown", at: 88) { $0.set(1 << 9, at: 88) },
        InspectionCase("marked-dirty", at: 72) { $0.set(1, at: 72) },
        InspectionCase("marked-corrupt", "", .corruption, at: 72) { $0.set(2, at: 72) },
        InspectionCase("external-data-file", at: 72) { $0.set(4, at: 72) },
        InspectionCase("encrypted", at: 32) { $0.set(1, 4, at: 32) },
        InspectionCase("encryption-invalid", "no header", .corruption, at: 32) { $0.set(2, 4, at: 32) },
        InspectionCase("encryption-invalid", "not LUKS", .corruption, at: 0x2200) {
            $0.set(2, 4, at: 32)
            $0.setExtensions([(0x0537_BE77, RawSnapshot.extra(0x2200, 512))], at: 112)
            $0.grow(to: 0x2400)
        },
    ]

    static let extensions: [InspectionCase] = [
        InspectionCase("extension-invalid", "too long", .corruption, at: 112) { $0.set(0x7777_FFFF_FFFF, at: 112) },
        InspectionCase("extension-invalid", "another length", .corruption, at: 112) {
            $0.setExtensions([(0x2385_2875, [0])], at: 112)
        },
        InspectionCase("extension-unknown", at: 112) { $0.setExtensions([(0x7777, [1, 2, 3])], at: 112) },
        InspectionCase("extension-duplicate", at: 120) {
            $0.setExtensions([(0x6803_F857, []), (0x6803_F857, [])], at: 112)
        },
        InspectionCase("backing-file", at: 0x80) { backing("base.raw", &$0) },
        InspectionCase("header-field-invalid", "backing_file_offset", .corruption, at: 8) {
            $0.set(513, at: 8)
            $0.set(1, 4, at: 16)
        },
        InspectionCase("backing-format-missing", at: 8) { backing("base.raw", &$0) },
        InspectionCase("backing-file-special", "json:", at: 0x80) { backing("json:{\"driver\":\"nbd\"}", &$0) },
        InspectionCase("backing-file-special", "nbd:", at: 0x80) { backing("nbd://10.0.0.1/x", &$0) },
        InspectionCase("backing-file-special", "absolute", at: 0x80) { backing("/etc/passwd", &$0) },
        InspectionCase("bitmaps", on: .bitmaps, at: 0x1C00),
        InspectionCase("bitmaps-untrusted", on: .bitmaps, at: 88) { $0.set(0, at: 88) },
        InspectionCase("bitmaps-missing", "", .corruption, at: 88) { $0.set(1, at: 88) },
        InspectionCase("data-behind-header", at: 0x151) { $0.set([1, 2, 3], at: 0x151) },
    ]

    private static func backing(_ name: String, _ image: inout ImageBytes) {
        image.set(0x80, at: 8)
        image.set(UInt64(name.utf8.count), 4, at: 16)
        image.set(Array(name.utf8), at: 0x80)
    }

    static let tables: [InspectionCase] = [
        InspectionCase("table-out-of-bounds", "active L1", .corruption, at: 40) { $0.set(1 << 40, at: 40) },
        InspectionCase("refcount-table-invalid", "2^64 - 512", .corruption, at: 48) { $0.set(.max - 511, at: 48) },
        InspectionCase("snapshot-table-invalid", "2^63", .corruption, at: 64, snapshots: 0) {
            $0.set(1 << 63, at: 64)
        },
        InspectionCase("snapshot-entry-invalid", "an L1 table past the end", .corruption, at: 0x1C00) {
            $0.set(1 << 40, at: 0x1C00)
        },
        InspectionCase("table-out-of-bounds", "misaligned", .corruption, at: 40) { $0.set(0x608, at: 40) },
        InspectionCase("tables-overlap", "", .corruption, at: 0x600) { $0.set(0x600, at: 48) },
        InspectionCase("active-l1-shared", "", .critical, at: 0x600) { $0.set(0x600, at: 0x1C00) },
        InspectionCase("l1-entry-reserved-bits", "", .corruption, at: 0x600) { $0.set(0x1E01, at: 0x600) },
        InspectionCase("l2-entry-reserved-bits", "", .corruption, at: 0x1E08) { $0.set(0x2002, at: 0x1E08) },
        InspectionCase("subclusters-invalid", "", .corruption, on: .extended, at: 0x3C010) {
            $0.set(0x0000_0001_FFFF_FFFF, at: 0x3C018)
        },
        InspectionCase("l1-entry-invalid", "past the end", .corruption, at: 0x600) { $0.set(1 << 40, at: 0x600) },
        InspectionCase("l2-entry-past-end", "", .corruption, at: 0x1E08) { $0.set(1 << 40, at: 0x1E08) },
        InspectionCase("l2-entry-past-end", "compressed", .corruption, at: 0x1E08) {
            $0.set(1 << 62 | 1 << 40, at: 0x1E08)
        },
        InspectionCase("active-vm-state", at: 0x608) {
            $0.set(2, 4, at: 36)
            $0.set(0x800, at: 0x608)
        },
        InspectionCase("data-in-slack", "active L1", at: 0x609) { $0.set(1, 1, at: 0x609) },
        InspectionCase("data-in-slack", "a snapshot's L1", at: 0x1A10) { $0.set([7], at: 0x1A10) },
        InspectionCase("data-in-slack", "snapshot table", at: 0x1C46) { $0.set([7], at: 0x1C46) },
        InspectionCase("data-past-last-cluster", at: 0x2200) { $0.set([1], at: 0x2200) },
        InspectionCase("free-clusters-with-data", at: nil) { $0.set([1], at: 0x2200) },
        InspectionCase("leaked-clusters", "", .leak, at: nil) {
            $0.set([1], at: 0x2200)
            $0.set(1, 2, at: 0x400 + 2 * 0x11)
        },
        InspectionCase("clusters-uncounted", "", .corruption, at: 0x2000) { $0.set(0, 2, at: 0x400 + 2 * 0x10) },
        // Points to the active L2 table.
        InspectionCase("old-l1-table", at: 0x2200) {
            $0.grow(to: 0x2400)
            $0.set(1 << 63 | 0x1E00, at: 0x2200)
        },
    ]

    static let snapshotTables: [InspectionCase] = [
        InspectionCase("internal-snapshots", at: 0x1C00),
        InspectionCase("snapshot-table-invalid", "E", .corruption, at: 0x1C24, snapshots: 0) {
            $0.set(0xFFFF_FFFF, 4, at: 0x1C24)
        },
        InspectionCase("snapshot-table-invalid", "a second one that isn't there", .corruption, at: 0x1C48) {
            $0.set(2, 4, at: 60)
        },
        InspectionCase("snapshot-table-invalid", "cut off", .corruption, at: 0x1C00, snapshots: 0) {
            $0.bytes.removeSubrange(0x1C45...)
        },
        InspectionCase("snapshot-id-missing", at: 0x1C00) { $0.set([0x33], at: 0x1C40) },
        InspectionCase("snapshot-id-unusual", at: 0x1C00) { $0.set([0x78], at: 0x1C40) },
        InspectionCase("snapshot-name-unusual", "not UTF-8", at: 0x1C00) { $0.set([0xFF], at: 0x1C41) },
        InspectionCase("snapshot-name-unusual", "zero byte", at: 0x1C00) { $0.set([0], at: 0x1C42) },
        InspectionCase("snapshot-name-unusual", "escape", at: 0x1C00) { $0.set([0x1B], at: 0x1C42) },
        InspectionCase("snapshot-date-invalid", at: 0x1C00) { $0.set(1_000_000_000, 4, at: 0x1C14) },
        InspectionCase("snapshot-disk-size", "odd", .corruption, at: 0x1C00) { $0.set(0x2FFF, at: 0x1C30) },
        InspectionCase("snapshot-disk-size", "2^60", .corruption, at: 0x1C00) { $0.set(1 << 60, at: 0x1C30) },
        InspectionCase("snapshot-disk-size-differs", at: 0x1C00) { $0.set(0x2000, at: 0x1C30) },
        InspectionCase("snapshot-entry-incomplete", "", .corruption, on: .version2, at: 0x1C00) {
            $0.set(3, 4, at: 4)
            $0.set(4, 4, at: 96)
            $0.set(104, 4, at: 100)
            $0.set(0, 4, at: 0x1C24)
        },
        InspectionCase("snapshot-l1-too-small", "", .corruption, at: 0x1C00) { $0.set(0, 4, at: 0x1C08) },
        InspectionCase("vm-state", at: 0x1C00) { $0.set(4096, at: 0x1C28) },
        InspectionCase("stale-snapshot-table", at: 64, snapshots: 0) { $0.set(0, 4, at: 60) },
        .snapshots("snapshot-id-repeated", entry: 1, .named("1", "a"), .named("1", "b")),
        .snapshots("snapshot-name-repeated", entry: 2, .named("1", "a"), .named("2", "b"), .named("3", "a")),
        .snapshots(
            "snapshot-dates-unordered", entry: 1, .named("1", "a"), .named("2", "b", seconds: 1_600_000_000)),
        .snapshots("snapshot-name-unusual", "empty", entry: 0, .named("1", "")),
        .snapshots("snapshot-extra-data", "more", entry: 0, RawSnapshot(extra: RawSnapshot.extra(0, 8192, .max, 9))),
    ]
}
