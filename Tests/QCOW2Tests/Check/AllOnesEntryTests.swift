// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// An L2 entry whose bits are all set, which comparing our verdicts with qemu-img's found unseen.
@Suite struct AllOnesEntryTests {
    @Test("It is a compressed cluster with two defects, wherever it is in the table", arguments: [0, 1, 8, 30, 63])
    func found(_ index: Int) throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-512-refcount1.qcow2"))
        image.set(.max, at: 0x800 + index * 8)
        var places: [String: UInt64?] = [:]
        let suspect = try SuspectImage(storage: InMemoryStorage(image.bytes, isWritable: false))
        let report = try suspect.check { places[$0.code.rawValue] = $0.offset?.rawValue }
        for code in ["copied-flag-compressed", "compressed-entry-invalid"] {
            #expect(report.count(of: Finding.Code(rawValue: code)) == 1)
            #expect(places[code] == UInt64(0x800 + index * 8))
        }
        #expect(report.count(of: Finding.Code(rawValue: "refcount-too-low")) == 0)
    }
}
