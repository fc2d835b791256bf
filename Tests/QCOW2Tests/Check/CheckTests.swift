// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// What a check of some bytes found.
struct CheckResult {
    let report: CheckReport
    let findings: [Finding]

    /// Checks bytes, opened leniently.
    init(_ bytes: [UInt8], _ options: CheckOptions = CheckOptions()) throws {
        let image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
        nonisolated(unsafe) var findings: [Finding] = []
        report = try image.check(options) { findings.append($0) }
        self.findings = findings
    }

    /// The codes found, with how often each.
    var codes: [String: UInt64] {
        Dictionary(uniqueKeysWithValues: report.tallies.map { ($0.code.rawValue, $0.count) })
    }

    /// For messages of tests.
    var text: String { findings.map { "\($0.severity) \($0.code): \($0.message)" }.joined(separator: "\n") }
}

@Suite struct CheckTests {
    static let fixtures = GoldenImageTests.names + ["v3-512-refcount1", "v3-512-bitmaps"]

    @Test("Images that real tools made are clean", arguments: fixtures)
    func golden(_ name: String) throws {
        let result = try CheckResult(Fixtures.bytes("\(name).qcow2"))
        #expect(result.report.tallies.isEmpty, "\(result.text)")
        #expect(result.report.isComplete)
    }

    @Test("What our verbs made is clean", arguments: Specimen.all)
    func specimens(_ specimen: Specimen) throws {
        let result = try CheckResult(specimen.bytes)
        #expect(result.report.tallies.isEmpty, "\(result.text)")
    }

    @Test("The worked example is clean in every state", arguments: WorkedExample.allCases)
    func workedExample(_ state: WorkedExample) throws {
        let result = try CheckResult(state.bytes)
        #expect(result.report.tallies.isEmpty, "\(result.text)")
    }

    @Test("A deep check decodes every compressed cluster", arguments: [("v3-512", 0x1200), ("v3-4k-zstd", 0x9000)])
    func deep(_ name: String, _ place: Int) throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("\(name).qcow2"))
        var options = CheckOptions()
        options.decodesCompressedClusters = true
        let whole = try CheckResult(image.bytes, options)
        // Four in each of the two L2 tables.
        #expect(whole.report.decodedClusterCount == 8 && whole.report.tallies.isEmpty)

        image.set([UInt8](repeating: 0xFF, count: 64), at: place)
        #expect(try CheckResult(image.bytes).report.tallies.isEmpty)
        #expect(try CheckResult(image.bytes, options).codes == ["compressed-data-invalid": 2])
    }

    @Test("Thousands of snapshots with one L1 table cost no more than one, and are all counted")
    func manySnapshots() throws {
        var builder = ImageBuilder(size: 32 << 10)
        builder.fill(8)
        let table = builder.take(refcount: 4000)
        builder.setSnapshots(
            (0..<4000).map { RawSnapshot(l1TableOffset: table, l1EntryCount: 1, id: Array("\($0)".utf8)) })
        let bytes = builder.finished().bytes
        let storage = CountingStorage(bytes)
        let tally = storage.tally
        let image = try SuspectImage(storage: storage)
        var options = CheckOptions()
        options.findingLimitPerCode = 10
        let counter = Counter()
        let report = try image.check(options) { _ in counter.count += 1 }
        #expect(report.count(of: Finding.Code(rawValue: "snapshot-l1-shared")) == 3999)
        #expect(counter.count == 10 && report.tallies.map(\.reportedCount) == [10])
        #expect(report.checkedSnapshotCount == 4000)
        #expect(tally.requestedByteCount <= 8 * bytes.count + 2 << 20)
        #expect(tally.changeCount == 0)
    }

    private final class Counter { var count = 0 }

    @Test("Several windows find the same as one")
    func windows() throws {
        // More clusters than the smallest window covers; one leaks, and one is mapped without being counted.
        var builder = ImageBuilder(refcountOrder: 0, size: 20 << 20)
        builder.fill(36000)
        builder.take()
        builder.take(refcount: 0)
        var image = builder.finished()
        let l1Table = Int(image.number(at: 40))
        let l2Table = Int(image.number(at: l1Table + 500 * 8) & 0xFF_FFFF_FFFF)
        image.set(image.number(at: l2Table) + 512, at: l2Table)
        var options = CheckOptions()
        options.memoryBudget = 1
        let one = try CheckResult(image.bytes)
        let many = try CheckResult(image.bytes, options)
        #expect(one.codes == many.codes && Set(one.findings) == Set(many.findings))
        #expect(one.codes["refcount-too-high"] == 2 && one.codes["cluster-mapped-twice"] == 1, "\(one.text)")
        #expect(one.report.allocatedClusterCount == 36000)
    }

    @Test("A check can be stopped")
    func cancelled() throws {
        let image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2")))
        var options = CheckOptions()
        options.progress = { _ in false }
        let error = #expect(throws: QCOW2Error.self) { _ = try image.check(options) }
        #expect(error?.code == .cancelled)
    }
}
