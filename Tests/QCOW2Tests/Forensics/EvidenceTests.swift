// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// What an inspection says has been looked at, or it says that nobody looked.
@Suite struct EvidenceTests {
    private func inspect(_ bytes: [UInt8], _ options: InspectionOptions = InspectionOptions()) throws -> Inspection {
        try Inspection(of: InMemoryStorage(bytes, isWritable: false), options: options)
    }

    /// An image with a deleted snapshot, whose L1 table of eight clusters leads to eight L2 tables with a cluster of
    /// data each; all of it lies in free clusters behind the rest.
    private struct Deleted {
        var file: ImageBytes
        let l1Table: Int
        var l2Tables: [Int] = []

        init() throws {
            file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
            l1Table = file.bytes.count
            file.grow(to: l1Table + 8 * 512)
            for index in 0..<8 {
                let (l2Table, data) = (file.bytes.count, file.bytes.count + 512)
                file.set([UInt8](repeating: 0xDA, count: 512), at: data)
                file.set(1 << 63 | UInt64(data), at: l2Table)
                file.set(1 << 63 | UInt64(l2Table), at: l1Table + index * 512)
                l2Tables.append(l2Table)
            }
            var entry = RawSnapshot.named("7", "gone")
            (entry.l1TableOffset, entry.l1EntryCount) = (l1Table, 8 * 64)
            entry.extra = RawSnapshot.extra(0, 8 * 64 * 64 * 512, .max)
            file.set(entry.encoded, at: 0x1C48 + 64)
        }
    }

    private func remnant(_ deleted: Deleted) throws -> Inspection.SnapshotRemnant {
        let inspection = try inspect(deleted.file.bytes)
        try #require(inspection.deletedSnapshots.count == 1)
        let finding = inspection.findings.first { $0.code.rawValue == "deleted-snapshot" }
        #expect(finding?.confidence == inspection.deletedSnapshots[0].confidence)
        return inspection.deletedSnapshots[0]
    }

    @Test("A whole tree is readable, and what its data is worth isn't claimed")
    func whole() throws {
        let remnant = try remnant(Deleted())
        let survey = remnant.survey
        #expect(survey.l1State == .readable && survey.isComplete && remnant.confidence == .confirmed)
        #expect(survey.l1ClusterCount == 8 && survey.readableL1ClusterCount == 8)
        #expect(survey.l2TableCount == 8 && survey.readableL2TableCount == 8)
        #expect(survey.unreferencedDataClusterCount == 8 && survey.referencedDataClusterCount == 0)
        let message = try inspect(Deleted().file.bytes).findings.first { $0.code.rawValue == "deleted-snapshot" }?
            .message
        #expect(message?.contains("is still there; of its 8 L2 tables 8 are readable") == true)
        #expect(message?.contains("what they hold was not looked at") == true)
    }

    @Test("An L1 table of which the first cluster is left is not still there", arguments: 1..<8)
    func overwrittenL1(_ left: Int) throws {
        var deleted = try Deleted()
        deleted.file.set([UInt8](repeating: 0x61, count: (8 - left) * 512), at: deleted.l1Table + left * 512)
        let survey = try remnant(deleted).survey
        #expect(survey.l1State == .overwritten && survey.readableL1ClusterCount == left)
        #expect(survey.l2TableCount == left && survey.readableL2TableCount == left)
    }

    @Test("Nothing is left of an L1 table, and nothing else speaks for the entry")
    func lost() throws {
        var deleted = try Deleted()
        deleted.file.set([UInt8](repeating: 0x61, count: 8 * 512), at: deleted.l1Table)
        let remnant = try remnant(deleted)
        #expect(remnant.l1State == .lost && remnant.confidence == .unconfirmed && !remnant.confidenceReason.isEmpty)
    }

    @Test("L2 tables are looked at: overwritten, in use, and past the end of the file")
    func l2Tables() throws {
        var deleted = try Deleted()
        deleted.file.set([UInt8](repeating: 0x61, count: 512), at: deleted.l2Tables[0])
        deleted.file.set([UInt8](repeating: 0, count: 512), at: deleted.l2Tables[1])
        deleted.file.set(1 << 63 | 0x1E00, at: deleted.l1Table + 2 * 512)  // The active one.
        deleted.file.set(1 << 63 | 0x1C00, at: deleted.l1Table + 3 * 512)  // The snapshot table.
        deleted.file.set(1 << 63 | 1 << 40, at: deleted.l1Table + 4 * 512)
        // A cluster of the active state.
        deleted.file.set(1 << 63 | 0x2000, at: deleted.l2Tables[5])
        let remnant = try remnant(deleted)
        let survey = remnant.survey
        #expect(survey.l2TableCount == 8 && survey.readableL2TableCount == 3 && survey.sharedL2TableCount == 1)
        #expect(survey.overwrittenL2TableCount == 3 && survey.cutL2TableCount == 1)
        #expect(survey.unreferencedDataClusterCount == 2 && survey.referencedDataClusterCount == 1)
    }

    @Test("A file that ends in the table")
    func cut() throws {
        var deleted = try Deleted()
        deleted.file.bytes.removeSubrange((deleted.l1Table + 4 * 512)...)
        let survey = try remnant(deleted).survey
        #expect(survey.l1State == .cut && survey.readableL1ClusterCount == 4 && survey.cutL2TableCount == 4)
    }

    @Test("Without a header nobody looked at the tables")
    func withoutHeader() throws {
        var deleted = try Deleted()
        deleted.file.set([UInt8](repeating: 0, count: 512), at: 0)
        let inspection = try inspect(deleted.file.bytes)
        try #require(inspection.deletedSnapshots.count >= 1)
        for remnant in inspection.deletedSnapshots {
            #expect(remnant.l1State == .notLookedAt && remnant.confidence == .unconfirmed && remnant.place == .unknown)
        }
        let findings = inspection.findings.filter { $0.code.rawValue == "deleted-snapshot" }
        #expect(findings.allSatisfy { $0.message.hasSuffix("its L1 table was not looked at.") })
    }

    @Test("Where the limit is reached, what was not looked at is said")
    func limited() throws {
        let deleted = try Deleted()
        var options = InspectionOptions()
        options.searchByteLimit = 512 * 6
        let survey = try #require(try inspect(deleted.file.bytes, options).deletedSnapshots.first?.survey)
        #expect(!survey.isComplete && survey.l1State == .notLookedAt)
    }

    @Test("Snapshots of an image on the guest's disk aren't this image's")
    func nested() throws {
        var inner = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        inner.set(1_700_000_000, 4, at: 0x1C10)
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        let start = file.bytes.count + 1024
        file.set(inner.bytes, at: start)
        let inspection = try inspect(file.bytes)
        #expect(inspection.deletedSnapshots.isEmpty)
        try #require(inspection.nestedSnapshots.count == 1)
        #expect(inspection.nestedSnapshots[0].nestedImageOffset?.rawValue == UInt64(start))
        #expect(inspection.nestedSnapshots[0].snapshot.name == "first")
        #expect(inspection.findings.contains { $0.code.rawValue == "nested-snapshot" && $0.confidence == .probable })

        // Without its header it may be anybody's.
        file.set([UInt8](repeating: 0, count: 512), at: start)
        file.set([0x32], at: start + 0x1C40)
        let other = try inspect(file.bytes)
        #expect(other.nestedSnapshots.isEmpty && other.deletedSnapshots.map(\.confidence) == [.unconfirmed])
    }

    @Test("A freed refcount table is no L1 table", arguments: ["v3-512", "v3-512-refcount64", "v3-512-refcount32"])
    func refcountTable(_ name: String) throws {
        var file = ImageBytes(bytes: try Fixtures.bytes("\(name).qcow2"))
        let (table, block) = (Int(file.number(at: 48)), file.bytes.count)
        let live = Int(file.number(at: table))
        file.set(Array(file.bytes[live..<(live + 512)]), at: block)
        file.set(Array(file.bytes[table..<(table + 512)]), at: block + 512)
        // One that leads to an old block.
        file.set(UInt64(block), at: block + 1024)
        file.grow(to: block + 1536)
        #expect(try inspect(file.bytes).oldL1Tables.isEmpty)
    }

    @Test("An entry beside one that the image has is probably this image's")
    func beside() throws {
        var deleted = try Deleted()
        deleted.file.set([UInt8](repeating: 0x61, count: 8 * 512), at: deleted.l1Table)
        deleted.file.set(1_700_000_000, 4, at: 0x1C10)
        let old = deleted.file.bytes.count
        let entries = [
            Array(deleted.file.bytes[0x1C00..<0x1C48]), Array(deleted.file.bytes[0x1C88..<0x1CCD]),
        ]
        deleted.file.set([UInt8](repeating: 0, count: 128), at: 0x1C48)
        deleted.file.set(entries[0] + entries[1], at: old)
        deleted.file.grow(to: old + 512)
        let remnant = try remnant(deleted)
        #expect(remnant.offset.rawValue == UInt64(old + 72) && remnant.confidence == .probable)
    }

    @Test("Clusters in use without a refcount are counted, and the first is named")
    func uncounted() throws {
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        for cluster in [15, 16] { file.set(0, 2, at: 0x400 + cluster * 2) }
        let inspection = try inspect(file.bytes)
        #expect(inspection.clusters?.referencedWithoutRefcount == 2)
        let finding = inspection.findings.first { $0.code.rawValue == "clusters-uncounted" }
        #expect(finding?.severity == .corruption && finding?.offset == HostOffset(15 * 512))
    }

    @Test("Where tables can't be read, what is unused isn't sure")
    func doubt() throws {
        var file = ImageBytes(bytes: try Fixtures.bytes("v3-512.qcow2"))
        file.set(1 << 40, at: 0x1C00)
        let inspection = try inspect(file.bytes)
        #expect(inspection.clusters?.areReferencesKnown == false)
        #expect(!inspection.findings.contains { $0.code.rawValue == "leaked-clusters" })
        let unknown = inspection.findings.first { $0.code.rawValue == "references-unknown" }
        #expect(unknown?.confidence == .unconfirmed)
    }
}
