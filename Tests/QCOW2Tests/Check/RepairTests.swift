// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

@Suite struct RepairTests {
    /// Repairs bytes, and returns what became of them.
    static func repair(
        _ bytes: [UInt8], _ scope: RepairScope = .all, discardingRemnants: Bool = false
    ) throws -> (bytes: [UInt8], report: RepairReport) {
        var image = try SuspectImage(storage: InMemoryStorage(bytes))
        let report = try image.repair(scope, discardingRemnants: discardingRemnants)
        return (image.close().bytes, report)
    }

    @Test(
        "What can be repaired is clean afterwards, for both checkers",
        arguments: Violation.all.filter(\.isRepairable))
    func repairable(_ violation: Violation) throws {
        let bytes = try violation.bytes()
        let (repaired, report) = try Self.repair(bytes)
        #expect(report.hasChanges)
        let result = try CheckResult(repaired)
        #expect(result.report.tallies.isEmpty, "\(result.text)")
        #expect(ConsistencyCount(repaired).findings.isEmpty)
        #expect(report.after?.isClean == true)
        // Every state is what it was, as far as it could be read before.
        if let old = try? Contents(of: bytes) { #expect(try Contents(of: repaired) == old) }
        #expect(try Contents(of: repaired).names == ["1 first"])
        try verifyByQEMU(repaired)
    }

    @Test(
        "What can't be repaired is found again, and nothing is worse",
        arguments: Violation.all.filter { !$0.isRepairable })
    func unrepairable(_ violation: Violation) throws {
        let bytes = try violation.bytes()
        let before = try CheckResult(bytes)
        let repaired: [UInt8]
        do {
            repaired = try Self.repair(bytes).bytes
        } catch let error as QCOW2Error {
            #expect([.limitExceeded, .unsupported].contains(error.code), "\(error)")
            return
        }
        let after = try CheckResult(repaired)
        #expect(
            Set(after.codes.keys).isSubset(of: Set(before.codes.keys).union(["refcount-too-high"])), "\(after.text)")
        for severity in [Finding.Severity.critical, .corruption] {
            #expect(after.report.count(of: severity) <= before.report.count(of: severity), "\(after.text)")
        }
        // Whatever could be read can still be, and reads the same.
        if let old = try? Contents(of: bytes) { #expect(try Contents(of: repaired) == old) }
        // Nothing that may be in use was freed where not all is known.
        if !before.report.isComplete {
            for cluster in 0..<(bytes.count / 512)
            where !bytes[(cluster * 512)..<(cluster * 512 + 512)].allSatisfy({ $0 == 0 }) {
                let range = (cluster * 512)..<(cluster * 512 + 512)
                if cluster > 0 { #expect(repaired[range] == bytes[range], "cluster \(cluster)") }
            }
        }
        // Repairing again comes to an end: what moved may have left a flag that is needlessly clear.
        let again = try Self.repair(repaired)
        let last = try Self.repair(again.bytes)
        #expect(!last.report.hasChanges)
    }

    @Test("A dry run changes nothing, and says what would change", arguments: Violation.all.filter(\.isRepairable))
    func dryRun(_ violation: Violation) throws {
        let bytes = try violation.bytes()
        var image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
        let report = try image.repair(.all, isDryRun: true)
        #expect(report.hasChanges && report.after == nil)
        #expect(image.close().journal.isEmpty)
    }

    @Test("Repairing leaks frees them, and refuses where refcounts are too low")
    func leaks() throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        // A leaked cluster, and one that counts twice as often as it is referred to.
        image.grow(to: 0x2400)
        image.set(1, 2, at: 0x400 + 17 * 2)
        image.set(2, 2, at: 0x400 + 16 * 2)
        let (repaired, report) = try Self.repair(image.bytes, .leaks)
        #expect(report.loweredRefcountCount == 2)
        #expect(try CheckResult(repaired).report.tallies.isEmpty)
        // The freed cluster at the end is cut off, or used by what the repair wrote.
        try verifyByQEMU(repaired)

        image.set(1, 2, at: 0x400 + 5 * 2)
        let error = #expect(throws: QCOW2Error.self) { _ = try Self.repair(image.bytes, .leaks) }
        #expect(error?.code == .needsRepair)
    }

    @Test("A clean image isn't touched", arguments: RepairScope.allCases)
    func clean(_ scope: RepairScope) throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2")))
        let report = try image.repair(scope)
        #expect(!report.hasChanges && report.after == nil)
        #expect(image.close().journal.isEmpty)
    }

    @Test("An image opened for reading isn't repaired")
    func readOnly() throws {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2"), isWritable: false))
        let error = #expect(throws: QCOW2Error.self) { try image.repair(.all) }
        #expect(error?.code == .readOnly)
    }

    @Test("A repaired image works on")
    func usable() throws {
        var bytes = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        bytes.set([UInt8](repeating: 0, count: 512), at: 0x400)
        bytes.set(3, at: 72)
        var image = try Image(storage: InMemoryStorage(bytes.bytes))
        #expect(throws: QCOW2Error.self) { try image.createSnapshot(named: "second") }
        let report = try image.repair(.all)
        #expect(report.clearedMarks == [.dirty, .corrupt])
        try image.createSnapshot(named: "second")
        try image.applySnapshot(.name("first"))
        #expect(try image.check().tallies.isEmpty)
    }

    private func verifyByQEMU(_ bytes: [UInt8]) throws {
        guard Tool.isInstalled("qemu-img") else { return }
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let result = try Tool.run("qemu-img", ["check", "-f", "qcow2", path])
        #expect(result.status == 0, "\(result.output)\(result.errors)")
    }

    @Test("A refcount table with garbage in it doesn't make the file enormous")
    func farEnd() throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-4k.qcow2"))
        image.set(36864, 4, at: 56)
        var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
        let error = #expect(throws: QCOW2Error.self) { try suspect.repair(.all) }
        #expect(error?.code == .unsupported && error?.offset != nil)
        #expect(suspect.close().bytes == image.bytes)
    }
}
