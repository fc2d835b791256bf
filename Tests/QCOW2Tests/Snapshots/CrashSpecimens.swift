// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import Testing

extension Specimen {
    /// Whether a full reading takes so long that it is done for few crash states only.
    var isLarge: Bool { bytes.count > 200_000 }

    /// Layouts beyond those of the golden images, for crash states.
    static let crashing: [Specimen] = {
        do {
            return try all + made.map { Specimen(testDescription: $0, bytes: $1.bytes) } + withMoreSnapshots()
        } catch {
            Issue.record(error)
            return []
        }
    }()

    private static var made: [(String, TwoStateImage)] {
        var made: [(String, TwoStateImage)] = []
        for bits in [9, 12, 16] {
            made.append(("v2, clusters of \(1 << bits)", TwoStateImage(version: 2, clusterBits: bits)))
            for order in bits == 9 ? [1, 2, 3, 4, 5, 6] : [1, 4, 6] {
                let image = TwoStateImage(clusterBits: bits, refcountOrder: order)
                made.append(("v3, clusters of \(1 << bits), \(1 << order)-bit refcounts", image))
            }
        }
        for (bits, few, many) in [(9, 100, 150), (12, 40, 540)] {
            let grown = TwoStateImage(clusterBits: bits, activeSize: many, snapshotSize: few)
            let shrunk = TwoStateImage(version: 2, clusterBits: bits, activeSize: few, snapshotSize: many)
            made.append(("grown since, clusters of \(1 << bits)", grown))
            made.append(("shrunk since, clusters of \(1 << bits)", shrunk))
        }
        // Every cluster that the refcount table can describe is in use, so whatever is done makes it longer.
        let full = TwoStateImage(refcountOrder: 6, activeSize: 4096, snapshotSize: 4096, clusterCount: 4096)
        return made + [("full refcount table", full)]
    }

    /// More snapshots on top, from a size to another one and back.
    private static func withMoreSnapshots() throws -> [Specimen] {
        try [(2, 12, 40, 40), (3, 9, 150, 100), (3, 16, 40, 24)].map { version, bits, active, first in
            let made = TwoStateImage(
                version: version, clusterBits: bits, activeSize: active, snapshotSize: first)
            var image = try Image(storage: InMemoryStorage(made.bytes))
            try image.createSnapshot(named: "second")
            try image.applySnapshot(.name("first"), savingCurrentAs: "third")
            try image.applySnapshot(.name("second"))
            return Specimen(
                testDescription: "v\(version), clusters of \(1 << bits), three snapshots", bytes: image.close().bytes)
        }
    }
}
