// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import Testing

/// Images with damaged fields are inspected and repaired without a trap, and with one verdict on what is leaked.
@Suite struct MutatedInspectionTests {
    private static let names = ["v2-512", "v3-512", "v3-4k", "v3-16k-extended", "v3-512-bitmaps"]
    /// `QCOW2_MUTANTS` sets how many there are of each image.
    private static let count =
        ProcessInfo.processInfo.environment["QCOW2_MUTANTS"].flatMap(Int.init) ?? 30

    /// The places of the 8-byte fields of tables, and of everything in the header and the snapshot table.
    private static func places(_ image: ImageBytes) -> [Int] {
        let cluster = 1 << Int(image.number(4, at: 20))
        let table = Int(image.number(at: 64))
        var places = Array(stride(from: 4, to: 112, by: 4)) + Array(stride(from: table, to: table + 72, by: 2))
        for start in stride(from: cluster, to: image.bytes.count, by: cluster) {
            for position in stride(from: start, to: min(start + cluster, image.bytes.count) - 7, by: 8)
            where image.number(at: position) != 0 && image.number(at: position) & 0x1FF <= 1 { places.append(position) }
        }
        return places
    }

    private static func mutant(_ image: ImageBytes, _ random: inout SplitMix64) -> ImageBytes {
        var image = image
        let (cluster, places) = (UInt64(1) << image.number(4, at: 20), places(image))
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            let place = places.randomElement(using: &random) ?? 0
            let old = image.number(at: place)
            let other = UInt64.random(in: 0..<UInt64(image.bytes.count) / cluster, using: &random) * cluster
            let values: [UInt64] = [
                0, 1, .max, old ^ 1 << UInt64.random(in: 0..<64, using: &random), other, 1 << 63 | other,
                1 << 62 | other,
                UInt64(image.bytes.count) / cluster * cluster, 1 << 56, old &+ cluster, 1 << 40,
            ]
            image.set(values.randomElement(using: &random) ?? 0, Bool.random(using: &random) ? 8 : 4, at: place)
        }
        return image
    }

    @Test("Mutants", arguments: names)
    func mutants(_ name: String) throws {
        let original = ImageBytes(bytes: try Fixtures.bytes("\(name).qcow2"))
        for index in 0..<Self.count {
            var random = SplitMix64(seed: UInt64(index) << 8 | UInt64(Self.names.firstIndex(of: name) ?? 0))
            let mutant = Self.mutant(original, &random)
            let inspection = try Inspection(of: InMemoryStorage(mutant.bytes, isWritable: false))
            guard var suspect = try? SuspectImage(storage: InMemoryStorage(mutant.bytes)) else { continue }
            let report = try suspect.check()
            if report.isComplete, let clusters = inspection.clusters, !clusters.isCut {
                var leaked: UInt64 = 0
                for finding in try CheckResult(mutant.bytes).findings
                where finding.code.rawValue == "refcount-too-high" && finding.message.hasSuffix("but 0 references.")
                    && finding.offset?.rawValue ?? .max < mutant.bytes.count
                { leaked += 1 }
                #expect(clusters.leaked == leaked, "\(name) \(index)")
            }
            guard let repair = try? suspect.repair(.leaks), !repair.remnants.isEmpty else { continue }
            #expect(suspect.close().bytes == mutant.bytes, "\(name) \(index)")
            #expect(!inspection.deletedSnapshots.isEmpty || (inspection.clusters?.leaked ?? 1) > 0, "\(name) \(index)")
        }
    }
}
