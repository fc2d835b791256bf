// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// What `qemu-img snapshot -a` leaves when it is killed between steps 4 and 7 of section "6.1".
@Suite struct InterruptedApplyTests {
    /// State D of the worked example, with the refcounts and the active L1 table that step 4 leaves.
    private static let bytes: [UInt8] = {
        var image = WorkedExample.d.image
        image.set(0x8000_0000_0000_0800, at: 0x600)
        for cluster in [4, 5] { image.set(2, 2, at: 0x400 + cluster * 2) }
        return image.bytes
    }()

    @Test("The next guest write would change the snapshot: that is critical")
    func found() throws {
        let result = try CheckResult(Self.bytes)
        #expect(
            result.codes == ["snapshot-writable": 1, "copied-flag-l1": 1, "refcount-too-high": 2], "\(result.text)")
        let critical = result.findings.first { $0.severity == .critical }
        #expect(critical?.offset == HostOffset(0x600))
        #expect(critical?.table == "active L1 table" && critical?.index == 0)
    }

    @Test("Repaired, the applied state and the snapshot are whole and apart", arguments: RepairScope.allCases)
    func repaired(_ scope: RepairScope) throws {
        let contents = try Contents(of: Self.bytes)
        var image = try Image(storage: InMemoryStorage(Self.bytes))
        // The state before the apply is in leaked clusters, as a whole: it isn't freed unasked.
        #expect(try image.repair(scope).remnants.map(\.kind) == [.l2Table])
        let report = try image.repair(scope, discardingRemnants: true)
        // Leaks alone are freed, but a critical finding is more than leaks.
        guard scope == .all else {
            #expect(report.after?.count(of: Finding.Code(rawValue: "snapshot-writable")) == 1)
            return
        }
        #expect(report.after?.tallies.isEmpty == true)
        let bytes = image.close().bytes
        #expect(try CheckResult(bytes).report.tallies.isEmpty)
        #expect(try Contents(of: bytes) == contents)
        #expect(contents.states[0] == contents.states[1])
    }
}
