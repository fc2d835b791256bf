// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// A repair is one commit: whatever a crash leaves is the damaged image or the repaired one.
@Suite struct RepairCrashTests {
    static let violations = Violation.all.filter { violation in
        guard violation.isRepairable, let bytes = try? violation.bytes() else { return false }
        return (try? Contents(of: bytes)) != nil
    }

    @Test("Every crash state of a repair is the old image or the new one", arguments: violations)
    func crash(_ violation: Violation) throws {
        let bytes = try violation.bytes()
        let contents = try Contents(of: bytes)
        let old = try CheckResult(bytes)
        var image = try Image(storage: InMemoryStorage(bytes))
        let report = try image.repair(.all)
        #expect(report.hasChanges)
        let storage = image.close()
        #expect(storage.journal.count { $0 == .flush } == 2)
        let states = CrashStates(
            of: bytes, storage.journal, randomStatesPerGroup: CrashTests.randomStatesPerGroup / 2,
            tornStatesPerWrite: 2, seed: 5)
        var outcomes: Set<Bool> = []
        let count = try states.forEach { bytes, description in
            let result = try CheckResult(bytes)
            // The repaired image, or the old findings, to the last one.
            let isNew = result.report.tallies.isEmpty
            outcomes.insert(isNew)
            if !isNew { #expect(result.codes == old.codes, "\(description)\n\(result.text)") }
            #expect(try Contents(of: bytes) == contents, "\(description)")
        }
        // Each write makes a state of its own, whatever came before it.
        #expect(outcomes.count == 2 && count > storage.journal.count { $0 != .flush }, "\(count) states")
    }

    @Test("A repair that fails anywhere leaves the old image or the new one, usable")
    func fault() throws {
        let violation = try #require(Self.violations.first { $0.codes["refcount-too-low"] == 17 })
        let bytes = try violation.bytes()
        let opening = FaultInjectingStorage(bytes, failingAt: nil)
        var whole = try Image(storage: opening)
        try whole.repair(.all)
        for index in 0..<whole.close().totalOperationCount {
            guard var image = try? Image(storage: FaultInjectingStorage(bytes, failingAt: index)) else { continue }
            var failure: QCOW2Error?
            do throws(QCOW2Error) { try image.repair(.all) } catch { failure = error }
            if let failure { #expect(failure.code == .inputOutput) }
            // The second attempt works, and there is nothing left for a third.
            try image.repair(.all)
            #expect(try image.check().tallies.isEmpty, "operation \(index)")
        }
    }
}
