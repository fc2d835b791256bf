// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

@Suite struct QCOW2ErrorTests {
    static let codes: [(QCOW2Error.Code, String)] = [
        (.notQCOW2, "notQCOW2"), (.corrupt, "corrupt"), (.needsRepair, "needsRepair"), (.unsupported, "unsupported"),
        (.inputOutput, "inputOutput"), (.inUse, "inUse"), (.readOnly, "readOnly"),
        (.noSuchSnapshot, "noSuchSnapshot"), (.ambiguousSnapshot, "ambiguousSnapshot"),
        (.invalidName, "invalidName"), (.nameInUse, "nameInUse"), (.limitExceeded, "limitExceeded"),
        (.activeBitmaps, "activeBitmaps"),
    ]

    @Test("Every code has its name, for logs and JSON", arguments: codes)
    func code(_ code: QCOW2Error.Code, _ name: String) { #expect(code.description == name) }

    @Test("The description is the message, with the offset when there is one")
    func description() {
        #expect(QCOW2Error(.corrupt, "Broken.").description == "Broken.")
        #expect(QCOW2Error(.corrupt, "Broken.", at: HostOffset(0x600)).description == "Broken. (at offset 0x600)")
    }

    /// What each factory makes: its code, and words that must be in it.
    static let factories: [(QCOW2Error, QCOW2Error.Code, [String])] = [
        (.notQCOW2(), .notQCOW2, ["magic"]),
        (.truncated("header", needed: 72, have: 10, at: HostOffset(0)), .corrupt, ["header", "72", "10"]),
        (.invalid("size", "it is odd", at: HostOffset(0)), .corrupt, ["size", "it is odd"]),
        (.outOfRange("cluster_bits", 63, 9...21, at: HostOffset(0)), .corrupt, ["cluster_bits", "63", "9", "21"]),
        (.misaligned("l1", HostOffset(0x601), at: HostOffset(0)), .corrupt, ["l1", "0x601"]),
        (.beyondEnd("l1", HostOffset(0x60000), at: HostOffset(0)), .corrupt, ["l1", "0x60000", "end of the file"]),
        (.reservedBits("L2 entry", 0xA02, at: HostOffset(0)), .corrupt, ["L2 entry", "0xa02"]),
        (.overflow("count", at: HostOffset(0)), .corrupt, ["count"]),
    ]

    @Test("Factories put names and numbers into whole sentences", arguments: factories)
    func factory(_ error: QCOW2Error, _ code: QCOW2Error.Code, _ words: [String]) {
        #expect(error.code == code && error.offset == HostOffset(0) && error.cause == nil)
        #expect(error.message.hasSuffix("."))
        for word in words { #expect(error.message.contains(word)) }
    }

    @Test("The cause is kept")
    func cause() {
        let error = QCOW2Error(.inputOutput, "Broken.", cause: QCOW2Error(.inUse, "Inner."))
        #expect((error.cause as? QCOW2Error)?.code == .inUse)
    }
}
