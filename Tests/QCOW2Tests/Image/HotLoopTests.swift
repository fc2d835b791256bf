// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import Testing

@testable import QCOW2

/// The loops that are written for vector instructions, against the plain meaning of each entry by itself.
@Suite struct HotLoopTests {
    /// Clusters of 4 KiB: tables of 512 entries.
    static let geometry = ImageGeometry.of(clusterBits: 12)

    static let extended = ImageGeometry.of(clusterBits: 14, extended: true)

    /// An L2 table of runs of random lengths, with holes, compressed and zero clusters between.
    static func table(_ random: inout SplitMix64, _ geometry: ImageGeometry = geometry) -> [UInt8] {
        var table = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = table.mutableSpan
        var index = 0
        while index < geometry.l2EntryCount {
            let length = min(Int.random(in: 1...200, using: &random), geometry.l2EntryCount - index)
            let first = UInt64.random(in: 1...100_000, using: &random)
            let kind = Int.random(in: 0...(geometry.hasExtendedL2 ? 2 : 5), using: &random)
            let breaker = Int.random(in: 0..<length, using: &random)
            for position in 0..<length {
                var raw = (first + UInt64(position)) << UInt64(geometry.clusterBits)
                switch kind {
                case 0: raw = 0
                case 1: raw |= L2Entry.Bits.copied
                case 2: raw |= Bool.random(using: &random) ? L2Entry.Bits.copied : 0
                case 3 where position == breaker: raw |= L2Entry.Bits.zero
                case 4 where position == breaker: raw = L2Entry.Bits.compressed | first << 12
                case 5 where position == breaker: raw = L2Entry.Bits.zero
                default: break
                }
                span.storeBigEndian(raw, at: (index + position) * geometry.l2EntryByteCount)
                guard geometry.hasExtendedL2 else { continue }
                let (zeros, allocated) = (UInt32.random(in: 0...(.max), using: &random), random.next())
                let bitmap = UInt64(zeros) << 32 | (raw == 0 ? 0 : allocated & UInt64(~zeros))
                span.storeBigEndian(bitmap, at: (index + position) * 16 + 8)
            }
            index += length
        }
        return table
    }

    @Test("A table's runs are its entries one by one", arguments: 0..<200 as Range<UInt64>, [geometry, extended])
    func runs(_ seed: UInt64, _ geometry: ImageGeometry) throws {
        var random = SplitMix64(seed: seed)
        let table = Self.table(&random, geometry)
        let scan = L2TableScan(geometry: geometry, fileByteCount: 101_000 << UInt64(geometry.clusterBits))
        var found: [UInt64] = []
        let flags = try scan.forEachRun(in: table.span, at: HostOffset(0)) { run in
            found += run.first..<run.end
        }
        var wanted: [UInt64] = []
        var (anySet, anyClear) = (false, false)
        for index in 0..<geometry.l2EntryCount {
            let position = index * geometry.l2EntryByteCount
            let entry = L2Entry(rawValue: table.span.loadBigEndian(at: position))
            if let run = try scan.target(of: entry, in: table.span, position, HostOffset(0)) {
                wanted += run.first..<run.end
            }
            guard entry.ownCluster != nil else { continue }
            if entry.isCopied { anySet = true } else { anyClear = true }
        }
        // Runs come in the order of the entries, but for one that an entry of another kind interrupts.
        #expect(found.sorted() == wanted.sorted(), "seed \(seed)")
        #expect(flags.isAnySet == anySet, "seed \(seed)")
        #expect(flags.isAnyClear == anyClear, "seed \(seed)")
    }

    @Test(
        "Whatever the entry that doesn't belong, it is refused at its place", arguments: [16, 17, 48, 49, 80, 300, 511])
    func badEntry(_ index: Int) throws {
        let bits: [UInt64] = [1 << 1, 1 << 8, 1 << 9, 1 << 11, 1 << 56, 1 << 61, 1 << 55]
        for bit in bits {
            var table = [UInt8](repeating: 0, count: Self.geometry.clusterByteCount)
            var span = table.mutableSpan
            for entry in 0..<Self.geometry.l2EntryCount { span.storeBigEndian(UInt64(entry + 5) << 12, at: entry * 8) }
            span.storeBigEndian(UInt64(index + 5) << 12 | bit, at: index * 8)
            let scan = L2TableScan(geometry: Self.geometry, fileByteCount: 1 << 40)
            let error = #expect(throws: QCOW2Error.self) {
                try scan.forEachRun(in: table.span, at: HostOffset(1 << 20)) { _ in }
            }
            #expect(error?.code == .corrupt)
            #expect(error?.offset == HostOffset(1 << 20 + UInt64(index * 8)), "bit \(bit)")
        }
    }

    @Test("A subcluster that is both allocated and zero is refused at its place", arguments: [0, 1, 40])
    func badBitmap(_ index: Int) throws {
        let geometry = Self.extended
        var table = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = table.mutableSpan
        for entry in 0..<geometry.l2EntryCount {
            span.storeBigEndian(UInt64(entry + 5) << 14, at: entry * 16)
            let bitmap: UInt64 = entry == index ? 0x8000_0000_8000_0000 : 0xFFFF_FFFF
            span.storeBigEndian(bitmap, at: entry * 16 + 8)
        }
        let scan = L2TableScan(geometry: geometry, fileByteCount: 1 << 40)
        let error = #expect(throws: QCOW2Error.self) {
            try scan.forEachRun(in: table.span, at: HostOffset(1 << 20)) { _ in }
        }
        #expect(error?.code == .corrupt)
        #expect(error?.offset == HostOffset(1 << 20 + UInt64(index * 16)))
    }

    @Test(
        "A run that leaves the file is refused at the entry that does", arguments: [1, 15, 16, 17, 31, 32, 33, 48, 511])
    func endOfFile(_ count: Int) throws {
        var table = [UInt8](repeating: 0, count: Self.geometry.clusterByteCount)
        var span = table.mutableSpan
        for entry in 0..<Self.geometry.l2EntryCount { span.storeBigEndian(UInt64(entry + 5) << 12, at: entry * 8) }
        for rest in [1, 4095, 4096] as [UInt64] {
            let scan = L2TableScan(geometry: Self.geometry, fileByteCount: UInt64(count + 4) << 12 + rest)
            let error = #expect(throws: QCOW2Error.self) {
                try scan.forEachRun(in: table.span, at: HostOffset(1 << 20)) { _ in }
            }
            #expect(error?.code == .corrupt)
            #expect(error?.offset == HostOffset(1 << 20 + UInt64(count * 8)), "\(rest) bytes of the last cluster")
        }
    }

    @Test("Flags are set and cleared entry by entry", arguments: 0..<20 as Range<UInt64>)
    func flags(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let table = Self.table(&random)
        let scan = L2TableScan(geometry: Self.geometry, fileByteCount: 1 << 40)
        var bits = CopiedFlags.BitSet(count: Self.geometry.l2EntryCount)
        for index in 0..<Self.geometry.l2EntryCount where Bool.random(using: &random) { bits.set(index) }
        for flags in [CopiedFlags.allClear, .allSet, .mixed(bits)] {
            var changed = table
            var span = changed.mutableSpan
            scan.apply(flags, to: &span)
            for index in 0..<Self.geometry.l2EntryCount {
                let entry = L2Entry(rawValue: table.span.loadBigEndian(at: index * 8))
                let isCopied =
                    switch flags {
                    case .allClear: false
                    case .allSet: entry.ownCluster != nil
                    case .mixed(let bits): bits[index]
                    }
                let result: UInt64 = changed.span.loadBigEndian(at: index * 8)
                #expect(result == entry.withCopied(isCopied).rawValue, "seed \(seed), entry \(index)")
            }
        }
    }

    @Test("Refcounts are compared and changed cluster by cluster", arguments: 0..<30 as Range<UInt64>, 1...6)
    func settling(_ seed: UInt64, _ order: Int) {
        settle(seed, order, UInt16.self)
        settle(seed, order, UInt32.self)
        settle(seed, order, UInt64.self)
    }

    private func settle<Lane: FixedWidthInteger & UnsignedInteger & Sendable>(
        _ seed: UInt64, _ order: Int, _: Lane.Type
    ) {
        var random = SplitMix64(seed: seed)
        // Blocks that are looked at together, the last of them shorter: of different clusters, all alike, or all but one.
        let block = CountWindow<Lane>.blockCount
        let count = 3 * block + 100
        let kinds = (0..<4).map { _ in Int.random(in: 0..<3, using: &random) }
        let exception = Int.random(in: 1..<99, using: &random)
        let maximum = ImageGeometry.of(order: order).maximumRefcount
        var window = CountWindow<Lane>(capacity: count)
        window.reset(to: 1000..<(1000 + UInt64(count)))
        var (stored, references, changes): ([UInt64], [UInt64], [Int64]) = ([], [], [])
        for index in 0..<count {
            if kinds[index / block] > 0, index % block > 0,
                kinds[index / block] == 1 || (index % block != exception && index % block != exception + 1)
            {
                let (old, new) = (references[index - 1], Int64(references[index - 1]) + changes[index - 1])
                window.add(
                    ClusterRun(first: 1000 + UInt64(index), count: 1),
                    CountWindow<Lane>.weight(old: UInt32(old), new: UInt32(new)) ?? 0)
                references.append(references[index - 1])
                changes.append(changes[index - 1])
                stored.append(stored[index - 1])
                continue
            }
            let old = UInt32.random(in: 0...min(3, UInt32(clamping: maximum)), using: &random)
            let new = UInt32.random(in: 0...3, using: &random)
            window.add(
                ClusterRun(first: 1000 + UInt64(index), count: 1), CountWindow<Lane>.weight(old: old, new: new) ?? 0)
            references.append(UInt64(old))
            changes.append(Int64(new) - Int64(old))
            // Nearly always enough and small; sometimes too few, a leak, or at the end of what the width can hold.
            switch Int.random(in: 0..<6400, using: &random) {
            case 0: stored.append(UInt64(old) - min(UInt64(old), 1))
            case 1: stored.append(maximum)
            case 2: stored.append(maximum - min(maximum - UInt64(old), 1))
            case 3...800: stored.append(min(maximum, UInt64(old) + 1))
            default: stored.append(UInt64(old))
            }
        }
        let piece = window.settle(stored, count: count, from: 1000, maximumRefcount: maximum)
        var isBad = false
        var changed: [UInt64] = []
        for index in 0..<count {
            let (new, overflow) =
                changes[index] < 0
                ? stored[index].subtractingReportingOverflow(changes[index].magnitude)
                : stored[index].addingReportingOverflow(changes[index].magnitude)
            isBad = isBad || stored[index] < references[index] || overflow || new > maximum
            changed.append(new)
        }
        #expect(piece.isBad == isBad, "seed \(seed)")
        #expect(piece.hasChanges == changes.contains { $0 != 0 }, "seed \(seed)")
        #expect(piece.freeCount == stored.count { $0 == 0 }, "seed \(seed)")
        #expect((0..<count).allSatisfy { window.old(1000 + UInt64($0)) == references[$0] }, "seed \(seed)")
        guard !isBad else { return }
        let wrong = (0..<count).filter { index in
            let isOne = changed[index] == 1
            let alone = window.areOne(ClusterRun(first: 1000 + UInt64(index), count: 1))
            return window.isOne(1000 + UInt64(index)) != isOne || alone.all != isOne || alone.none == isOne
        }
        #expect(wrong.isEmpty, "seed \(seed)")
        var applied = stored
        window.applyChanges(to: &applied, count: count, from: 1000)
        #expect(applied == changed, "seed \(seed)")
    }
}
