// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

extension ImageGeometry {
    /// Sizes for tests of the format layer.
    static func of(
        clusterBits: Int = 9, order: Int = 4, version: Int = 3, extended: Bool = false
    ) -> ImageGeometry {
        ImageGeometry(
            clusterBits: clusterBits, refcountOrder: order, hasExtendedL2: extended,
            hasZeroFlag: version == 3 && !extended)
    }
}

/// Section "2.3 Standard L2 entry".
@Suite struct L2EntryTests {
    /// An entry and what it means in version 3 and version 2; `nil` for what the version forbids.
    struct Case: CustomTestStringConvertible, Sendable {
        let rawValue: UInt64
        let version3: L2Entry.Mapping
        let version2: L2Entry.Mapping?
        var testDescription: String { "0x\(String(rawValue, radix: 16))" }
    }

    static let cases = [
        Case(rawValue: 0, version3: .unallocated, version2: .unallocated),
        Case(rawValue: 1 << 63, version3: .unallocated, version2: .unallocated),
        Case(rawValue: 0xA00, version3: .standard(HostOffset(0xA00)), version2: .standard(HostOffset(0xA00))),
        Case(
            rawValue: 0x80FF_FFFF_FFFF_FE00, version3: .standard(HostOffset(0x00FF_FFFF_FFFF_FE00)),
            version2: .standard(HostOffset(0x00FF_FFFF_FFFF_FE00))),
        Case(rawValue: 1, version3: .zero(preallocated: nil), version2: nil),
        Case(rawValue: 0x8000_0000_0000_0001, version3: .zero(preallocated: nil), version2: nil),
        Case(rawValue: 0xA01, version3: .zero(preallocated: HostOffset(0xA00)), version2: nil),
        Case(
            rawValue: 0x8000_0000_0000_0A01, version3: .zero(preallocated: HostOffset(0xA00)), version2: nil),
    ]

    @Test("Each kind is what section 2.3 says", arguments: cases)
    func kinds(_ test: Case) {
        let entry = L2Entry(rawValue: test.rawValue)
        let (version3, version2) = (ImageGeometry.of(version: 3), ImageGeometry.of(version: 2))
        #expect(entry.mapping(in: version3) == test.version3)
        #expect(entry.defect(in: version3) == nil)
        #expect((entry.defect(in: version2) == nil) == (test.version2 != nil))
        if let mapping = test.version2 { #expect(entry.mapping(in: version2) == mapping) }
        #expect(entry.isCopied == (test.rawValue >> 63 == 1))
    }

    @Test("Bit 62 comes first: a compressed cluster, bit 0 part of its offset")
    func compressed() {
        let entry = L2Entry(rawValue: 0x6000_0000_0000_0BED)
        for version in [2, 3] {
            let geometry = ImageGeometry.of(version: version)
            guard case .compressed(let cluster) = entry.mapping(in: geometry) else {
                Issue.record("not compressed")
                continue
            }
            #expect(cluster.offset == HostOffset(0xBED) && entry.defect(in: geometry) == nil)
        }
    }

    @Test("Reserved bits are a defect of entries that aren't compressed", arguments: Array(1...8) + Array(56...61))
    func reserved(_ bit: Int) {
        let entry = L2Entry(rawValue: 0xA00 | 1 << UInt64(bit))
        for version in [2, 3] { #expect(entry.defect(in: .of(version: version)) != nil) }
        #expect(entry.defect(in: .of(clusterBits: 14, extended: true)) != nil)
    }

    @Test("A compressed cluster with the copied flag is a defect")
    func compressedCopied() {
        #expect(L2Entry(rawValue: 0xC000_0000_0000_1200).defect(in: .of()) != nil)
    }

    @Test(
        "Setting the copied flag changes nothing else", arguments: [0, 0xA01, 0x8000_0000_0000_0A00, .max] as [UInt64])
    func withCopied(_ rawValue: UInt64) {
        let entry = L2Entry(rawValue: rawValue)
        #expect(entry.withCopied(true).rawValue == rawValue | 1 << 63)
        #expect(entry.withCopied(false).rawValue == rawValue & ~(1 << 63))
    }
}
