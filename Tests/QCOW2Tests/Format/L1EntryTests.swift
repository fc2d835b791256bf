// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "2.2 L1 entry".
@Suite struct L1EntryTests {
    @Test("Bits 9 to 55 are the L2 table's offset", arguments: 9...55)
    func offset(_ bit: UInt64) {
        let entry = L1Entry(rawValue: 1 << bit)
        #expect(entry.l2Table == HostOffset(1 << bit))
        #expect(!entry.hasReservedBits && !entry.isCopied)
    }

    @Test("Bits 0 to 8 and 56 to 62 are reserved", arguments: Array(0...8) + Array(56...62))
    func reserved(_ bit: Int) {
        let entry = L1Entry(rawValue: 1 << UInt64(bit))
        #expect(entry.hasReservedBits && entry.l2Table == nil && !entry.isCopied)
    }

    @Test("Bit 63 is the copied flag")
    func copied() {
        let entry = L1Entry(rawValue: 0x8000_0000_0000_0800)
        #expect(entry.isCopied && !entry.hasReservedBits && entry.l2Table == HostOffset(0x800))
        #expect(L1Entry(l2Table: HostOffset(0x800), isCopied: true) == entry)
        #expect(L1Entry(l2Table: HostOffset(0x800), isCopied: false).rawValue == 0x800)
        #expect(L1Entry.unallocated.l2Table == nil && L1Entry.unallocated.rawValue == 0)
    }

    @Test("Tables round-trip, whatever their bits")
    func table() {
        let values: [UInt64] = [0, 1, .max, 0x8000_0000_0000_0800, 0x7F00_0000_0000_01FF]
        let entries = values.map(L1Entry.init(rawValue:))
        let bytes = L1Entry.encodeTable(entries)
        #expect(bytes.count == 40 && Array(bytes[24..<32]) == [0x80, 0, 0, 0, 0, 0, 8, 0])
        #expect(L1Entry.decodeTable(bytes.span) == entries)
        #expect(L1Entry.decodeTable([UInt8]().span) == [])
    }
}
