// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Whichever operation of the storage fails, the image is the old one or the new one, and still usable.
@Suite struct FaultTests {
    static let effects: [FaultInjectingStorage.Effect] = [.none, .half, .whole]

    @Test("A failing operation is reported and hurts nothing", arguments: Verb.allCases, effects)
    func fault(_ verb: Verb, _ effect: FaultInjectingStorage.Effect) throws {
        // Half of the work is the hardest case; for the others every third image does.
        for (index, specimen) in Specimen.all.enumerated() where effect == .half || index % 3 == 0 {
            try fault(verb, effect, specimen)
        }
    }

    private func fault(_ verb: Verb, _ effect: FaultInjectingStorage.Effect, _ specimen: Specimen) throws {
        var whole = try Image(storage: FaultInjectingStorage(specimen.bytes, failingAt: nil))
        let opening = try operationCount(specimen)
        let old = try Contents(of: specimen.bytes)
        try verb.perform(on: &whole)
        let storage = whole.close()
        let total = storage.totalOperationCount
        let new = try Contents(of: storage.base.bytes)

        for index in opening..<total {
            var image = try Image(
                storage: FaultInjectingStorage(specimen.bytes, failingAt: index, effect: effect))
            var failure: QCOW2Error?
            do throws(QCOW2Error) { try verb.perform(on: &image) } catch { failure = error }
            // Giving back space happens after the commit, and its failure costs only space.
            if let failure { #expect(failure.code == .inputOutput) }
            let contents = try Contents(of: image)
            #expect(contents == (failure == nil ? new : contents))
            #expect(contents == old || contents == new, "operation \(index) of \(specimen.testDescription)")

            // The value is still usable: the same operation, or the next one, works.
            if contents == old { try verb.perform(on: &image) }
            if let first = image.snapshots.first {
                try image.renameSnapshot(.id(first.id), to: "after the failure")
            } else {
                try image.createSnapshot(named: "after the failure")
            }
            let bytes = image.close().base.bytes
            #expect(try Contents(of: bytes).names.first?.hasSuffix("after the failure") == true)
            let findings = ConsistencyCount(bytes).findings
            #expect(findings.isEmpty, "operation \(index) of \(specimen.testDescription)")
            TestTally.add(1, to: "\(verb)", of: "operations of a storage that failed")
        }
    }

    /// How many operations opening takes.
    private func operationCount(_ specimen: Specimen) throws -> Int {
        let image = try Image(storage: FaultInjectingStorage(specimen.bytes, failingAt: nil))
        return image.close().totalOperationCount
    }
}
