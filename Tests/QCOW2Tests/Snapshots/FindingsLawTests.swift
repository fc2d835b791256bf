// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// No verb makes anything worse: whatever a check finds after it, it found before.
@Suite struct FindingsLawTests {
    /// What is wrong with an image that every verb still takes.
    enum Damage: String, CaseIterable {
        /// Some refcounts are too high.
        case leaks
        /// Some copied flags of the active tree contradict the refcounts.
        case flags
        case both
    }

    @Test("Whatever a check finds after a verb, it found before", arguments: Specimen.all, Damage.allCases)
    func law(_ specimen: Specimen, _ damage: Damage) throws {
        for seed in 1...12 as ClosedRange<UInt64> {
            var random = SplitMix64(seed: seed)
            var image = RawImage(bytes: ImageBytes(bytes: specimen.bytes))
            if damage != .flags { image.leak(&random) }
            if damage != .leaks { image.flipFlags(&random) }
            let before = try Self.findings(image.bytes.bytes)
            for verb in Verb.allCases {
                var subject = try Image(storage: InMemoryStorage(image.bytes.bytes))
                do throws(QCOW2Error) { try verb.perform(on: &subject) } catch {
                    #expect(
                        subject.close().bytes == image.bytes.bytes, "\(specimen.testDescription), \(verb), seed \(seed)"
                    )
                    continue
                }
                let after = try Self.findings(subject.close().bytes)
                for (code, count) in after where count > before[code] ?? 0 {
                    Issue.record(
                        "\(specimen.testDescription), \(damage), \(verb), seed \(seed): \(count) \(code), \(before) before"
                    )
                }
            }
        }
    }

    @Test("Freeing leaks makes nothing worse, and repairing everything leaves nothing", arguments: Specimen.all)
    func repair(_ specimen: Specimen) throws {
        for seed in 1...12 as ClosedRange<UInt64> {
            var random = SplitMix64(seed: seed)
            var image = RawImage(bytes: ImageBytes(bytes: specimen.bytes))
            image.leak(&random)
            image.flipFlags(&random)
            var subject = try Image(storage: InMemoryStorage(image.bytes.bytes))
            let before = try Self.findings(image.bytes.bytes)
            try subject.repair(.leaks)
            let freed = subject.close().bytes
            let after = try Self.findings(freed)
            #expect(after["refcount-too-high"] == nil, "\(specimen.testDescription), seed \(seed): \(after)")
            #expect(
                after.allSatisfy { $0.value <= before[$0.key] ?? 0 },
                "\(specimen.testDescription), seed \(seed): \(after)")
            subject = try Image(storage: InMemoryStorage(freed))
            try subject.repair(.all)
            #expect(try Self.findings(subject.close().bytes).isEmpty, "\(specimen.testDescription), seed \(seed)")
        }
    }

    /// The findings that are more than notices, by code.
    private static func findings(_ bytes: [UInt8]) throws -> [String: UInt64] {
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        let tallies = try image.check().tallies.filter { $0.severity > .notice }
        return Dictionary(uniqueKeysWithValues: tallies.map { ($0.code.rawValue, $0.count) })
    }
}

/// An image whose refcounts and flags are changed byte by byte.
struct RawImage {
    var bytes: ImageBytes

    private var clusterBits: Int { Int(bytes.number(4, at: 20)) }
    private var refcountOrder: Int { bytes.number(4, at: 4) == 2 ? 4 : Int(bytes.number(4, at: 96)) }
    private var entryByteCount: Int { bytes.number(4, at: 4) > 2 && bytes.number(at: 72) & 16 != 0 ? 16 : 8 }

    /// Raises some refcounts by one, unless they are narrower than a byte.
    mutating func leak(_ random: inout SplitMix64) {
        guard refcountOrder >= 3 else { return }
        let width = 1 << refcountOrder / 8
        let block = Int(bytes.number(at: Int(bytes.number(at: 48))))
        let count = bytes.bytes.count >> clusterBits
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            // Not the header or a table in front: their clusters hold one thing alone.
            let cluster = Int.random(in: 4..<max(5, count), using: &random)
            guard cluster * width < 1 << clusterBits else { continue }
            let place = block + cluster * width
            bytes.set(bytes.number(width, at: place) + 1, width, at: place)
        }
    }

    /// Flips some copied flags of the active tree, where there is a table or a cluster.
    mutating func flipFlags(_ random: inout SplitMix64) {
        let l1Table = Int(bytes.number(at: 40))
        for index in 0..<Int(bytes.number(4, at: 36)) {
            let entry = bytes.number(at: l1Table + index * 8)
            let l2Table = Int(entry & 0x00FF_FFFF_FFFF_FE00)
            guard l2Table != 0 else { continue }
            if Int.random(in: 0..<4, using: &random) == 0 { bytes.set(entry ^ 1 << 63, at: l1Table + index * 8) }
            for place in stride(from: l2Table, to: l2Table + 1 << clusterBits, by: entryByteCount) {
                let entry = bytes.number(at: place)
                guard entry & 0x00FF_FFFF_FFFF_FE00 != 0, entry & 1 << 62 == 0 else { continue }
                if Int.random(in: 0..<8, using: &random) == 0 { bytes.set(entry ^ 1 << 63, at: place) }
            }
        }
    }
}
