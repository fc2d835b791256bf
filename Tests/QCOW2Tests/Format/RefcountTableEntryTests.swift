// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "3.1 Structure": the refcount table.
@Suite struct RefcountTableEntryTests {
    @Test("Bits 9 to 63 are the block's offset: there is no copied flag", arguments: 9...63)
    func offset(_ bit: UInt64) {
        let entry = RefcountTableEntry(rawValue: 1 << bit)
        #expect(entry.block == HostOffset(1 << bit) && !entry.hasReservedBits)
        #expect(RefcountTableEntry(block: entry.block) == entry)
    }

    @Test("Bits 0 to 8 are reserved", arguments: 0...8)
    func reserved(_ bit: UInt64) {
        let entry = RefcountTableEntry(rawValue: 1 << bit)
        #expect(entry.block == nil && entry.hasReservedBits)
    }

    @Test("Zero is no block")
    func none() {
        #expect(RefcountTableEntry(rawValue: 0).block == nil)
        #expect(RefcountTableEntry(block: nil).rawValue == 0)
    }
}
