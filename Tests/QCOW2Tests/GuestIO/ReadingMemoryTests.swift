// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// What the verbs that read cost in memory, on sparse files that describe as much as the format allows.
@Suite(.serialized, .enabled(if: MeasuredCommand.isPossible, "needs GNU time")) struct ReadingMemoryTests {
    /// A kind of file, and what of it the verbs must hold.
    struct Sparse: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Bytes of the disk.
        var size: UInt64 = 1 << 20
        var l1EntryCount = 4_194_304
        let snapshotCount: Int
        /// Whether each snapshot has an L1 table of its own, in a hole.
        var hasOwnTables = false
        var nameByteCount = 2
        /// Distinct L2 tables and data clusters at the disk's start, one for each snapshot.
        var hasOwnData = false

        var tableByteCount: Int { snapshotCount * ((64 + 8 + nameByteCount + 7) / 8 * 8) }
    }

    static let files = [
        Sparse(testDescription: "65,536 snapshots that name one L1 table of 32 MiB", snapshotCount: 65536),
        Sparse(
            testDescription: "400 snapshots with L1 tables of 32 MiB in holes", snapshotCount: 400, hasOwnTables: true),
        Sparse(
            testDescription: "L1 tables of 32 MiB that the disk needs", size: 1 << 51, snapshotCount: 3,
            hasOwnTables: true),
        Sparse(
            testDescription: "a snapshot table of 60 MiB", l1EntryCount: 1, snapshotCount: 65536, nameByteCount: 870),
        Sparse(
            testDescription: "500 states with data of their own", l1EntryCount: 1, snapshotCount: 500,
            hasOwnTables: true, hasOwnData: true),
    ]

    private static let clusterSize = 65536

    /// Writes the file: header, active L1, one L2 table, snapshot table, and the snapshots' L1 tables behind it.
    private func write(_ sparse: Sparse, to path: String) throws {
        let cluster = Self.clusterSize
        let tableSize = (sparse.l1EntryCount * 8 + cluster - 1) / cluster * cluster
        let (l1, table) = (3 * cluster, 3 * cluster + tableSize)
        let trees = table + (sparse.tableByteCount + cluster) / cluster * cluster
        var image = ImageBytes()
        image.set(0x5146_49FB, 4, at: 0)
        for (offset, value) in [(4, 3), (20, 16), (36, sparse.l1EntryCount), (56, 1), (60, sparse.snapshotCount)] {
            image.set(UInt64(value), 4, at: offset)
        }
        image.set(4, 4, at: 96)
        image.set(112, 4, at: 100)
        for (offset, value) in [(24, sparse.size), (40, UInt64(l1)), (48, UInt64(cluster)), (64, UInt64(table))] {
            image.set(value, at: offset)
        }
        image.grow(to: 512)
        let stride = tableSize + (sparse.hasOwnData ? 2 * cluster : 0)
        let entries = (0..<sparse.snapshotCount).map { index in
            let number = Array(String(index + 1).utf8)
            let rest = [UInt8](repeating: 0x6E, count: max(0, sparse.nameByteCount - number.count))
            return RawSnapshot(
                l1TableOffset: sparse.hasOwnTables ? trees + index * stride : l1, l1EntryCount: sparse.l1EntryCount,
                id: number, name: number + rest, extra: RawSnapshot.extra(0, sparse.size, .max))
        }
        try Data(image.bytes).write(to: URL(fileURLWithPath: path))
        let file = try #require(FileHandle(forWritingAtPath: path))
        func write(_ bytes: [UInt8], at offset: Int) throws {
            try file.seek(toOffset: UInt64(offset))
            try file.write(contentsOf: Data(bytes))
        }
        try write(RawSnapshot.table(entries), at: table)
        var end = trees + 2 * cluster
        if sparse.hasOwnTables { end = trees + sparse.snapshotCount * stride }
        if sparse.hasOwnData {
            for index in 0..<sparse.snapshotCount {
                let tree = trees + index * stride
                var (entry, data) = (ImageBytes(), ImageBytes())
                entry.set(UInt64(tree + tableSize), at: 0)
                for cluster in 0..<16 { data.set(UInt64(tree + tableSize + Self.clusterSize), at: 8 * cluster) }
                try write(entry.bytes, at: tree)
                try write(data.bytes, at: tree + tableSize)
                try write(Array("\(index)".utf8), at: tree + tableSize + cluster)
            }
        }
        try file.truncate(atOffset: UInt64(end))
        try file.close()
    }

    @Test("No verb that reads takes more than 96 MiB and what it must hold", arguments: files)
    func bounded(_ sparse: Sparse) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("sparse.qcow2")
        try write(sparse, to: path)
        let isLarge = sparse.size > 1 << 40
        var verbs = [["list", path], ["list", path, "--json"], ["diff", path, "id:1", "id:2"]]
        if !isLarge { verbs += [["hash", path, "--manifest"]] }
        if sparse.nameByteCount < 100 { verbs += [["map", path, "id:2"], ["diff", path, "id:1", "--json"]] }
        if !isLarge, sparse.nameByteCount < 100 {
            verbs += [
                ["hash", path, "id:2"], ["hash", path, "--all"],
                ["export", path, "id:2", folder.file("raw"), "--force"],
                ["export", path, "id:2", folder.file("new.qcow2"), "--format", "qcow2", "--force"],
                ["diff", path, "id:1", "id:2", "--exact"],
            ]
        }
        let limit = 96 << 20 + sparse.tableByteCount
        for verb in verbs {
            let result = try MeasuredCommand(verb)
            #expect(result.status == 0, "\(verb): \(result.output.prefix(300))")
            #expect(
                result.peakByteCount <= limit, "\(verb.filter { $0 != path }): \(result.peakByteCount >> 20) MiB")
            #expect(result.seconds < 60, "\(verb): \(result.seconds) s")
        }
    }
}
