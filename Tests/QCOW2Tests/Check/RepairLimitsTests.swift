// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// What a repair must not do, and what must not change what it does.
@Suite struct RepairLimitsTests {
    /// Violations that hide what a snapshot or the active state of the fixture refers to.
    static let hiding = Violation.all.filter { violation in
        violation.codes["references-unknown"] != nil && violation.codes["bitmaps-invalid"] == nil
    }

    @Test(
        "What a table that can't be read refers to isn't freed, however often the image is repaired", arguments: hiding,
        RepairScope.allCases)
    func hidden(_ violation: Violation, _ scope: RepairScope) throws {
        let original = try Fixtures.bytes("v3-512.qcow2")
        var damaged = ImageBytes(bytes: try violation.bytes())
        // Something to repair beside it: the header's refcount is too low, or that of the block too high.
        if scope == .all { damaged.set(0, 2, at: 0x400) } else { damaged.set(2, 2, at: 0x404) }
        var (repaired, report) = try RepairTests.repair(damaged.bytes, scope)
        #expect(report.hasChanges == (scope == .all))
        #expect(report.loweredRefcountCount == 0 && report.droppedSnapshotCount == 0)
        for next in RepairScope.allCases + [.leaks] {
            (repaired, report) = try RepairTests.repair(repaired, next)
            #expect(report.loweredRefcountCount == 0, "\(next)")
        }

        // With the damaged fields as they were, everything is there, and counted.
        var restored = ImageBytes(bytes: repaired)
        restored.set(Array(original[36..<48]), at: 36)
        restored.set(Array(original[60..<72]), at: 60)
        restored.set(Array(original[0x1C00..<0x1E00]), at: 0x1C00)
        restored.set(Array(original[0x600..<0x800]), at: 0x600)
        #expect(try Contents(of: restored.bytes) == Contents(of: original))
        let result = try CheckResult(restored.bytes)
        #expect(result.codes["refcount-too-low"] == nil, "\(result.text)")
        #expect(result.report.count(of: .critical) == 0, "\(result.text)")
    }

    @Test("The marks stay as long as anything else is wrong", arguments: Violation.all)
    func marks(_ violation: Violation) throws {
        var image = ImageBytes(bytes: try violation.bytes())
        image.set(image.number(at: 72) | 3, at: 72)
        let repaired: ImageBytes
        do {
            repaired = ImageBytes(bytes: try RepairTests.repair(image.bytes).bytes)
        } catch let error as QCOW2Error {
            #expect([.limitExceeded, .unsupported].contains(error.code), "\(error)")
            return
        }
        let result = try CheckResult(repaired.bytes)
        let others = result.findings.filter {
            $0.severity > .notice && !["marked-dirty", "marked-corrupt"].contains($0.code.rawValue)
        }
        let marks = repaired.number(at: 72) & 3
        #expect(marks == 3 || marks == 0 && others.isEmpty, "\(result.text)")
        if violation.isRepairable { #expect(marks == 0) }
    }

    @Test("Several windows repair the same as one")
    func windows() throws {
        // More clusters than the smallest window covers, and a refcount that is wrong here and there.
        var builder = ImageBuilder(size: 20 << 20, refcountTableClusterCount: 3)
        builder.fill(36000)
        builder.take()
        builder.take(300, refcount: 2)
        var image = builder.finished()
        let table = Int(image.number(at: 48))
        for index in stride(from: 0, to: 140, by: 20) {
            image.set(0, 2, at: Int(image.number(at: table + index * 8)) + 2 * index)
        }
        func repaired(_ budget: Int) throws -> ([UInt8], RepairReport) {
            var options = WriteOptions()
            options.memoryBudget = budget
            var checkOptions = CheckOptions()
            checkOptions.memoryBudget = budget
            var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
            let report = try suspect.repair(.all, checking: checkOptions, options: options)
            return (suspect.close().bytes, report)
        }
        let (one, report) = try repaired(72 << 20)
        let (many, _) = try repaired(1)
        #expect(isSame(one, many))
        #expect(report.raisedRefcountCount == 7 && report.loweredRefcountCount >= 301)
        #expect(report.after?.tallies.isEmpty == true)
    }

    @Test("A repair gives nothing the cluster behind the file's end that an entry reaches into")
    func misaligned() throws {
        var builder = ImageBuilder(clusterBits: 12, size: 1 << 20)
        builder.fill(3)
        var image = builder.finished()
        let l1Table = Int(image.number(at: 40))
        let l2Table = Int(image.number(at: l1Table) & 0xFF_FFFF_FFFF)
        let end = image.bytes.count
        image.set(1 << 63 | UInt64(end - 4096 + 0x200), at: l2Table + 8)
        image.set(0, 2, at: Int(image.number(at: Int(image.number(at: 48)))))
        let (repaired, report) = try RepairTests.repair(image.bytes)
        #expect(report.hasChanges && repaired.count > end + 4096)
        let result = try CheckResult(repaired)
        #expect(result.codes["l2-entry-misaligned"] == 1 && result.codes["refcount-too-low"] == nil, "\(result.text)")
    }
}
