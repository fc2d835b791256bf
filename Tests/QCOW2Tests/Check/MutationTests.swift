// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Images with a few random changes in their metadata: checked, repaired, checked again.
@Suite struct MutationTests {
    /// More for a thorough run: images per specimen.
    static let count = Int(ProcessInfo.processInfo.environment["QCOW2_MUTATIONS"] ?? "") ?? 60

    @Test("Checking never fails, and repairing never makes it worse", arguments: Specimen.all)
    func mutate(_ specimen: Specimen) throws {
        for seed in 0..<UInt64(Self.count) {
            var generator = SplitMix64(seed: seed)
            let bytes = Self.mutated(specimen.bytes, &generator)
            let name = "\(specimen.testDescription), seed \(seed)"
            let before: CheckResult
            do {
                before = try CheckResult(bytes)
            } catch let error as QCOW2Error {
                // A header that says nothing about the rest.
                #expect([.notQCOW2, .unsupported, .corrupt].contains(error.code), "\(name): \(error)")
                continue
            }
            var image = try SuspectImage(storage: InMemoryStorage(bytes))
            var failure: QCOW2Error?
            do throws(QCOW2Error) { try image.repair(.all) } catch { failure = error }
            let repaired = image.close().bytes
            if let failure {
                #expect([.limitExceeded, .unsupported].contains(failure.code), "\(name): \(failure)")
                #expect(repaired == bytes, "\(name)")
                continue
            }
            let after = try CheckResult(repaired)
            for rule in ["refcount-too-low", "snapshot-writable", "refcount-table-entry-invalid"] {
                #expect(after.codes[rule] == nil || before.codes[rule] != nil, "\(name): \(after.text)")
            }
            #expect(after.report.count(of: .critical) <= before.report.count(of: .critical), "\(name)")
            if let old = try? Contents(of: bytes), let new = try? Contents(of: repaired) {
                #expect(old == new, "\(name)")
            }
        }
    }

    /// Changes one to three numbers of the header behind the cluster size, or of the tables.
    private static func mutated(_ bytes: [UInt8], _ generator: inout SplitMix64) -> [UInt8] {
        var image = ImageBytes(bytes: bytes)
        let clusterSize = 1 << Int(image.number(4, at: 20))
        let tables = [0, 1, 2, 3, 4, 13, 14, 15, 16].filter { $0 * clusterSize < bytes.count }
        for _ in 0...Int.random(in: 0...2, using: &generator) {
            let table = tables.randomElement(using: &generator) ?? 1
            var place = table * clusterSize + Int.random(in: 0..<8, using: &generator) * 8
            if table == 0 {
                place = [24, 32, 36, 40, 48, 56, 60, 64, 72, 80, 88, 96].randomElement(using: &generator) ?? 24
            }
            let old = image.number(at: place)
            let values: [UInt64] = [
                0, 1, old ^ 1, old ^ (1 << 63), old ^ (1 << 62), old &+ 1, old &- 1, old ^ 0x200, .max, 1 << 40,
                0x8000_0000_0000_0200,
                old ^ (1 << UInt64.random(in: 0..<64, using: &generator)),
                UInt64(Int.random(in: 0..<20, using: &generator) * clusterSize), generator.next(),
            ]
            image.set(values.randomElement(using: &generator) ?? 0, at: place)
        }
        return image.bytes
    }
}
