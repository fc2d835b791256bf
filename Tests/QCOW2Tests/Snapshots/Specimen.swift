// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// Images with snapshots, as bytes: golden ones, and what our own verbs made of them.
struct Specimen: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let bytes: [UInt8]

    static let all: [Specimen] = {
        do {
            return try makeAll()
        } catch {
            Issue.record(error)
            return []
        }
    }()

    private static func makeAll() throws -> [Specimen] {
        var specimens: [Specimen] = []
        for name in GoldenImageTests.names {
            specimens.append(Specimen(testDescription: name, bytes: try Fixtures.bytes("\(name).qcow2")))
        }
        // Three snapshots that share most tables, and freed clusters between used ones.
        for name in ["v2-512", "v3-512-refcount4", "v3-512"] {
            var image = try Image(storage: InMemoryStorage(Fixtures.bytes("\(name).qcow2")))
            try image.createSnapshot(named: "second")
            try image.applySnapshot(.name("first"), savingCurrentAs: "third")
            try image.renameSnapshot(.name("second"), to: "other")
            try image.applySnapshot(.name("third"))
            specimens.append(
                Specimen(testDescription: "\(name) with three snapshots", bytes: image.close().bytes))
        }
        return specimens
    }
}
