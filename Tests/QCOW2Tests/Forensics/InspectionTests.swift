// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2Testing
import Testing

@testable import QCOW2

@Suite struct InspectionTests {
    static let cases =
        InspectionCase.headers + InspectionCase.extensions + InspectionCase.tables + InspectionCase.snapshotTables

    private func inspect(
        _ bytes: [UInt8], options: InspectionOptions = InspectionOptions()
    ) throws -> (Inspection, CountingStorage.Tally) {
        let storage = CountingStorage(bytes, isWritable: false)
        let tally = storage.tally
        return (try Inspection(of: storage, options: options), tally)
    }

    @Test("What there is to find is found, with code, severity and offset", arguments: cases)
    func finds(_ example: InspectionCase) throws {
        let (inspection, _) = try inspect(try example.bytes())
        let found = inspection.findings.filter { $0.code.rawValue == example.code }
        #expect(
            found.contains { $0.severity == example.severity && $0.offset?.rawValue == example.offset },
            "\(inspection.findings)")
        #expect(inspection.snapshots.count == example.snapshotCount)
    }

    @Test("Every code has a case or a violation, and a row in the article with its severity")
    func codes() throws {
        var codes = Set(Self.cases.map(\.code))
        for violation in Violation.all { codes.formUnion(violation.codes.keys) }
        // These have tests of their own.
        codes.formUnion([
            "deleted-snapshot", "nested-snapshot", "old-snapshot-table", "data-past-disk", "search-cut", "read-failed",
            "compressed-data-invalid", "snapshot-behind-table", "snapshot-l1-shared",
        ])
        #expect(codes == Set(FindingRule.allCases.map(\.rawValue)))
        let article = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../../Sources/QCOW2/QCOW2.docc/Findings.md")
        let rows = try String(contentsOf: article, encoding: .utf8).split(separator: "\n").filter {
            $0.hasPrefix("| `")
        }
        #expect(rows.count == FindingRule.allCases.count)
        for (rule, row) in zip(FindingRule.allCases, rows) {
            #expect(row.hasPrefix("| `\(rule.rawValue)` | \(rule.severity.rawValue) |"), "\(rule)")
        }
    }

    @Test(
        "An image of the real tools has nothing wrong",
        arguments: [
            "demo", "v2-512", "v3-16k-extended", "v3-4k-zstd", "v3-4k", "v3-512-backing", "v3-512-bitmaps",
            "v3-512-refcount1", "v3-512-refcount2", "v3-512-refcount4", "v3-512-refcount8", "v3-512-refcount32",
            "v3-512-refcount64", "v3-512",
        ])
    func clean(_ name: String) throws {
        let bytes = try Fixtures.bytes("\(name).qcow2")
        let (inspection, tally) = try inspect(bytes)
        #expect(inspection.findings.allSatisfy { $0.severity == .notice }, "\(inspection.findings)")
        let allowed: Set = ["internal-snapshots", "backing-file", "bitmaps"]
        #expect(Set(inspection.findings.map(\.code.rawValue)).isSubset(of: allowed), "\(inspection.findings)")
        #expect(inspection.openingError == nil && inspection.hasMagic)
        #expect(inspection.clusters?.leaked == 0 && inspection.clusters?.free == 0)
        let image = try Image(storage: InMemoryStorage(bytes))
        #expect(inspection.snapshots.map(\.snapshot) == image.snapshots)
        #expect(inspection.virtualSize == image.virtualSize && inspection.clusterSize == image.clusterSize)
        #expect(tally.changeCount == 0)
    }

    @Test("Every hostile image is inspected, at a cost that follows the file", arguments: HostileImageTests.all)
    func hostile(_ hostile: HostileImage) throws {
        let bytes = try hostile.bytes()
        let (inspection, tally) = try inspect(bytes)
        #expect(tally.changeCount == 0)
        #expect(tally.requestedByteCount <= 12 * bytes.count + 4 << 20)
        if hostile.operation == .open {
            #expect(inspection.openingError?.code == hostile.code)
            #expect(
                inspection.findings.contains { $0.severity >= .corruption || $0.severity == .unsupported },
                "\(inspection.findings)")
        } else {
            #expect(inspection.openingError == nil)
        }
        // Every field that is shown is really in the file.
        for field in inspection.dump.flatMap(\.fields) {
            let start = Int(field.offset.rawValue)
            #expect(bytes[start..<(start + field.bytes.count)].elementsEqual(field.bytes))
        }
    }

    @Test("A file cut off anywhere is inspected")
    func cutOff() throws {
        let bytes = try Fixtures.bytes("v3-512-bitmaps.qcow2")
        for count in stride(from: 0, to: bytes.count, by: 37) {
            let (inspection, _) = try inspect(Array(bytes[..<count]))
            #expect(inspection.fileByteCount == UInt64(count))
            #expect(inspection.hasMagic == (count >= 4))
            // 0x1400 is the snapshot table; its entry has 70 bytes.
            #expect(inspection.snapshots.count == (count >= 0x1400 + 70 ? 1 : 0))
        }
    }

    @Test("Data behind the end of the disk, in its last cluster, is found")
    func dataPastDisk() throws {
        var image = ImageBytes(bytes: try Fixtures.bytes("v3-4k.qcow2"))
        image.set(4096 + 512, at: 24)
        let (inspection, _) = try inspect(image.bytes)
        let finding = try #require(inspection.findings.first { $0.code.rawValue == "data-past-disk" })
        let place = Int(try #require(finding.offset).rawValue)
        // The second cluster reads 0x22.
        #expect(image.bytes[place] == 0x22 && place % 4096 == 512)
    }

    @Test("A failing read is a finding, and the rest is shown")
    func readFailures() throws {
        let bytes = try Fixtures.bytes("v3-512.qcow2")
        let whole = FaultInjectingStorage(bytes, failingAt: nil)
        _ = try Inspection(of: whole)
        let count = whole.totalOperationCount
        #expect(count > 8)
        for index in 0..<count {
            let storage = FaultInjectingStorage(bytes, failingAt: index)
            guard index > 0 else {
                #expect(throws: QCOW2Error.self) { try Inspection(of: storage) }
                continue
            }
            let inspection = try Inspection(of: storage)
            let isFound = inspection.findings.contains { $0.code.rawValue == "read-failed" }
            #expect(isFound || inspection.openingError?.code == .inputOutput, "\(index)")
        }
    }

    @Test("Of many findings some are kept and all are counted")
    func manyFindings() throws {
        let entries = (0..<500).map { RawSnapshot.named("x\($0)", "name") }
        var builder = ImageBuilder(clusterBits: 16, size: 8192)
        builder.fill(1)
        builder.setSnapshots(entries)
        let (inspection, _) = try inspect(builder.finished().bytes)
        let code = Finding.Code(rawValue: "snapshot-id-unusual")
        #expect(inspection.findings.count { $0.code == code } == 64)
        #expect(inspection.findingCounts[code] == 500)
        #expect(inspection.snapshots.count == 500)
    }
}
