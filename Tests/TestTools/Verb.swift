// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2
public import Testing

/// An operation that writes, to be tried in many circumstances.
public enum Verb: String, CaseIterable, Sendable, CustomTestStringConvertible {
    case create, apply, applyAndSave, delete, deleteMany, rename

    /// The verb's name.
    public var testDescription: String { rawValue }

    /// Carries the verb out on an image that holds a snapshot `first`.
    public func perform<S: Storage & ~Copyable>(
        on image: inout Image<S>, _ options: WriteOptions = WriteOptions()
    ) throws(QCOW2Error) {
        switch self {
        case .create: try image.createSnapshot(named: "new", options: options)
        case .apply: try image.applySnapshot(.name("first"), options: options)
        case .applyAndSave: try image.applySnapshot(.name("first"), savingCurrentAs: "saved", options: options)
        case .delete: try image.deleteSnapshots([.name("first")], options: options)
        case .deleteMany: try image.deleteSnapshots(image.snapshots.map { .id($0.id) }, options: options)
        case .rename: try image.renameSnapshot(.name("first"), to: "renamed", options: options)
        }
    }
}
