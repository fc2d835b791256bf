// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// An operation that writes, to be tried in many circumstances.
enum Verb: String, CaseIterable, CustomTestStringConvertible {
    case create, apply, applyAndSave, delete, deleteMany, rename

    var testDescription: String { rawValue }

    func perform<S: Storage & ~Copyable>(on image: inout Image<S>) throws(QCOW2Error) {
        switch self {
        case .create: try image.createSnapshot(named: "new")
        case .apply: try image.applySnapshot(.name("first"))
        case .applyAndSave: try image.applySnapshot(.name("first"), savingCurrentAs: "saved")
        case .delete: try image.deleteSnapshots([.name("first")])
        case .deleteMany: try image.deleteSnapshots(image.snapshots.map { .id($0.id) })
        case .rename: try image.renameSnapshot(.name("first"), to: "renamed")
        }
    }
}

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

/// All that a user can see of an image: its snapshots, and the content of every state.
struct Contents: Hashable {
    let names: [String]
    let states: [[UInt8]]

    init<S: Storage & ~Copyable>(of image: borrowing Image<S>) throws(QCOW2Error) {
        names = image.snapshots.map { "\($0.id) \($0.name)" }
        var states = [try image.read(Int(image.virtualSize), at: GuestOffset(0))]
        for snapshot in image.snapshots {
            states.append(try image.read(Int(snapshot.diskSize), at: GuestOffset(0), of: .snapshot(.id(snapshot.id))))
        }
        self.states = states
    }

    init(of bytes: [UInt8]) throws {
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        try self.init(of: image)
    }
}
