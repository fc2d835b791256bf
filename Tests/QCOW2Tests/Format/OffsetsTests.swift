// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

@Suite struct OffsetsTests {
    @Test("Offsets are shown in hexadecimal")
    func description() {
        #expect(HostOffset(0x10000).description == "0x10000" && GuestOffset(0xABC).description == "0xabc")
    }

    @Test("Adding for a message stops at the largest number")
    func saturating() {
        #expect(HostOffset(8).saturating(adding: 8) == HostOffset(16))
        #expect(HostOffset(.max - 1).saturating(adding: 8) == HostOffset(.max))
    }

    @Test("Offsets are ordered by position")
    func order() {
        #expect(HostOffset(1) < HostOffset(2) && GuestOffset(1) < GuestOffset(2))
        #expect(ClusterRun(first: 3, count: 2).end == 5)
    }
}
