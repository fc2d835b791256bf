// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// A repair never erases what is left of a snapshot, unless that is asked for.
@Suite struct RemnantRepairTests {
    /// An image that lost the way to data which is still there.
    enum Loss: String, CaseIterable {
        case killedDeletion, loweredCount, zeroCount, zeroedL1, overwrittenL1Entry

        /// The image before, in which each of two snapshots and the active state have data of their own.
        static let original: [UInt8] = {
            do {
                var layout = TwoStateImage()
                layout.activeSize = 130
                layout.snapshotSize = 130
                var image = try Image(storage: InMemoryStorage(layout.bytes))
                try image.createSnapshot(named: "second")
                for index in 0..<12 {
                    try image.write(
                        [UInt8](repeating: UInt8(0xA0 + index), count: 512), at: GuestOffset(UInt64(index) * 1024))
                }
                try image.flush()
                return image.close().bytes
            } catch {
                Issue.record(error)
                return []
            }
        }()

        var image: ImageBytes {
            var image = ImageBytes(bytes: Self.original)
            let table = Int(image.number(at: 64))
            switch self {
            case .killedDeletion:
                // As qemu-img leaves it: a new table in a cluster of its own, the old one freed, no count lowered.
                let entry = Array(image.bytes[table..<(table + 72)])
                let cluster = (image.bytes.count + 511) / 512
                image.set(entry, at: cluster * 512)
                image.grow(to: (cluster + 1) * 512)
                image.set(UInt64(cluster * 512), at: 64)
                image.set(1, 4, at: 60)
                image.setRefcount(of: cluster, to: 1)
                image.setRefcount(of: table / 512, to: 0)
            case .loweredCount: image.set(1, 4, at: 60)
            case .zeroCount: image.set(0, 4, at: 60)
            case .zeroedL1:
                for index in 0..<3 { image.set(0, at: Int(image.number(at: 40)) + index * 8) }
            case .overwrittenL1Entry: image.set(0, at: Int(image.number(at: 40)))
            }
            return image
        }
    }

    @Test("What is left of a state is found before anything is freed, and nothing is written", arguments: Loss.allCases)
    func held(_ loss: Loss) throws {
        let bytes = loss.image.bytes
        for scope in RepairScope.allCases {
            for isDryRun in [true, false] {
                var image = try SuspectImage(storage: InMemoryStorage(bytes))
                let report = try image.repair(scope, isDryRun: isDryRun)
                #expect(!report.remnants.isEmpty && report.after == nil && !report.hasChanges)
                #expect(report.remnants.allSatisfy { $0.dataClusterCount > 0 && $0.offset.rawValue % 8 == 0 })
                #expect(image.close().journal.isEmpty)
            }
        }
    }

    @Test("The kinds of what is found", arguments: Loss.allCases)
    func kinds(_ loss: Loss) throws {
        let remnants = try RepairTests.repair(loss.image.bytes, .leaks).report.remnants
        let names = remnants.compactMap(\.snapshot?.name)
        switch loss {
        case .killedDeletion: #expect(names.isEmpty && remnants.contains { $0.kind == .l1Table })
        case .loweredCount: #expect(names == ["second"] && remnants[0].kind == .snapshotEntry)
        // The first has a date of 1970, which is none of a snapshot outside of a table.
        case .zeroCount: #expect(names == ["second"])
        case .zeroedL1, .overwrittenL1Entry: #expect(remnants.allSatisfy { $0.kind == .l2Table })
        }
    }

    @Test("On request all of it is freed, and every other state stays as it was", arguments: Loss.allCases)
    func discarded(_ loss: Loss) throws {
        let bytes = loss.image.bytes
        let contents = try Contents(of: bytes)
        let (repaired, report) = try RepairTests.repair(bytes, .leaks, discardingRemnants: true)
        #expect(report.remnants.isEmpty && report.loweredRefcountCount > 0)
        #expect(try Contents(of: repaired) == contents)
        #expect(try CheckResult(repaired).report.count(of: .leak) == 0)
    }

    @Test("Leaked copies of tables that lead to what a state has are freed without ado")
    func copies() throws {
        var image = ImageBytes(bytes: Loss.original)
        let l1Table = Int(image.number(at: 40))
        let l2Table = Int(image.number(at: l1Table) & 0x00FF_FFFF_FFFF_FE00)
        let refcountTable = Int(image.number(at: 48))
        let block = Int(image.number(at: refcountTable))
        for source in [l1Table, l2Table, Int(image.number(at: 64)), refcountTable, block] { image.leak(copyOf: source) }
        // Data that no table leads to.
        image.leak([UInt8](repeating: 0x5A, count: 512))
        let contents = try Contents(of: image.bytes)
        #expect(try CheckResult(image.bytes).codes == ["refcount-too-high": 6])
        let (repaired, report) = try RepairTests.repair(image.bytes, .leaks)
        #expect(report.remnants.isEmpty && report.loweredRefcountCount == 6)
        #expect(try CheckResult(repaired).report.tallies.isEmpty)
        #expect(try Contents(of: repaired) == contents)
    }

    @Test("A leaked L2 table counts once it leads to a leaked or free cluster with data")
    func ownData() throws {
        for (isLeaked, byte) in [(true, UInt8(7)), (false, 7), (true, 0), (false, 0)] {
            var image = ImageBytes(bytes: Loss.original)
            let data = image.leak([UInt8](repeating: byte, count: 512))
            if !isLeaked { image.setRefcount(of: data, to: 0) }
            var table = ImageBytes(bytes: [UInt8](repeating: 0, count: 512))
            table.set(1 << 63 | UInt64(data * 512), at: 16)
            image.leak(table.bytes)
            let report = try RepairTests.repair(image.bytes, .leaks).report
            #expect(report.remnants.map(\.kind) == (byte == 0 ? [] : [.l2Table]), "\(isLeaked) \(byte)")
        }
    }

    @Test("An entry that the header doesn't count is a finding; one whose table was freed is none")
    func behindTable() throws {
        #expect(try CheckResult(Loss.original).report.tallies.isEmpty)
        var image = Loss.loweredCount.image
        #expect(try CheckResult(image.bytes).codes["snapshot-behind-table"] == 1)
        let entry = Int(image.number(at: 64)) + 72
        image.setRefcount(of: Int(image.number(at: entry)) / 512, to: 0)
        #expect(try CheckResult(image.bytes).codes["snapshot-behind-table"] == nil)
    }

    @Test("An entry that the header doesn't count holds a repair back, even if all its data is shared")
    func sharedBehindTable() throws {
        var image = try Image(storage: InMemoryStorage(TwoStateImage().bytes))
        try image.createSnapshot(named: "second")
        var bytes = ImageBytes(bytes: image.close().bytes)
        bytes.set(1, 4, at: 60)
        let (repaired, report) = try RepairTests.repair(bytes.bytes, .leaks)
        #expect(report.remnants.map(\.snapshot?.name) == ["second"] && report.remnants[0].dataClusterCount == 0)
        #expect(repaired == bytes.bytes)
    }

    @Test("The search reads what is leaked once, and stops when asked to")
    func cost() throws {
        var image = ImageBytes(bytes: Loss.original)
        for index in 0..<2000 { image.leak([UInt8](repeating: UInt8(index & 0xFF) | 1, count: 512)) }
        func readByteCount(discarding: Bool) throws -> Int {
            let storage = CountingStorage(image.bytes)
            let tally = storage.tally
            var suspect = try SuspectImage(storage: storage)
            try suspect.repair(.leaks, isDryRun: true, discardingRemnants: discarding)
            return tally.requestedByteCount
        }
        let cost = try readByteCount(discarding: false) - readByteCount(discarding: true)
        #expect(cost < 2000 * 512 * 2, "\(cost)")

        var suspect = try SuspectImage(storage: InMemoryStorage(image.bytes))
        var options = WriteOptions()
        options.progress = { _ in false }
        let error = #expect(throws: QCOW2Error.self) { try suspect.repair(.leaks, options: options) }
        #expect(error?.code == .cancelled)
    }
}

extension ImageBytes {
    /// Sets a refcount of 16 bits; the cluster size is 512.
    mutating func setRefcount(of cluster: Int, to refcount: UInt64) {
        let table = Int(number(at: 48))
        var block = Int(number(at: table + cluster / 256 * 8))
        if block == 0 {
            block = (bytes.count + 511) / 512 * 512
            grow(to: block + 512)
            set(UInt64(block), at: table + cluster / 256 * 8)
            setRefcount(of: block / 512, to: 1)
        }
        set(refcount, 2, at: block + cluster % 256 * 2)
    }

    /// Appends a cluster that nothing refers to, and returns its number.
    @discardableResult
    mutating func leak(_ data: [UInt8]) -> Int {
        let cluster = (bytes.count + 511) / 512
        set(data, at: cluster * 512)
        grow(to: (cluster + 1) * 512)
        setRefcount(of: cluster, to: 1)
        return cluster
    }

    mutating func leak(copyOf offset: Int) { leak(Array(bytes[offset..<(offset + 512)])) }
}
