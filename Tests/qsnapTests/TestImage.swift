// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// A golden image's copy that the command works on.
struct TestImage {
    let folder: TemporaryFolder
    let path: String

    /// Copies a golden image, after a change of its bytes.
    init(_ name: String = "v3-512", _ change: (inout [UInt8]) throws -> Void = { _ in }) throws {
        folder = try TemporaryFolder()
        path = folder.file("disk.qcow2")
        try patch(Fixtures.bytes("\(name).qcow2"), change)
    }

    /// Changes the bytes of the file.
    func patch(_ change: (inout [UInt8]) throws -> Void) throws { try patch(bytes, change) }

    private func patch(_ bytes: [UInt8], _ change: (inout [UInt8]) throws -> Void) throws {
        var bytes = bytes
        try change(&bytes)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    var bytes: [UInt8] { get throws { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) } }

    /// The image as the library reads it, without locks: a process that another test starts may hold an open file's
    /// locks for a moment.
    private func opened() throws -> Image<InMemoryStorage> { try Image(storage: InMemoryStorage(bytes)) }

    var snapshots: [Snapshot] {
        get throws {
            let image = try opened()
            return image.snapshots
        }
    }

    var names: [String] { get throws { try snapshots.map(\.name) } }

    /// Adds a snapshot that is said to have been made some time ago.
    func add(_ name: String, secondsAgo: UInt32 = 0) throws {
        var image = try opened()
        let date = SnapshotDate(seconds: SnapshotDate.now.seconds - secondsAgo, nanoseconds: 0)
        try image.createSnapshot(named: name, date: date)
        let storage = image.close()
        try patch { $0 = storage.bytes }
    }

    /// What a state of the disk reads as; the active one by default.
    func content(of state: DiskState = .active) throws -> [UInt8] {
        let image = try opened()
        return try image.read(Int(image.virtualSize), at: GuestOffset(0), of: state)
    }

    /// Runs a verb on the image: the words are its name and what follows the image's path.
    func run(
        _ words: [String], via script: String? = nil, environment: [String: String] = ["TZ": "UTC"]
    ) throws -> Tool.Result {
        // The folder must outlive the command.
        try withExtendedLifetime(folder) {
            try Command.run([words[0], path] + words.dropFirst(), via: script, environment: environment)
        }
    }

    /// Runs a verb that must succeed without a word on standard error, and returns its output.
    @discardableResult
    func check(_ words: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        try check(words, sourceLocation: sourceLocation)
    }

    /// Runs a verb that must succeed without a word on standard error, and returns its output.
    @discardableResult
    func check(_ words: [String], sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let result = try run(words)
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)", sourceLocation: sourceLocation)
        return result.output
    }

    /// Runs a verb that must succeed with `--json`, and returns the object that it prints.
    func json(_ words: String..., sourceLocation: SourceLocation = #_sourceLocation) throws -> [String: Any] {
        try jsonObject(check(words + ["--json"], sourceLocation: sourceLocation))
    }

    /// Checks that a verb is refused: the status, one sentence that names the file, and not a byte changed.
    func expectRefusal(
        _ words: [String], status: Int32, saying sentence: String..., via script: String? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = try bytes
        let result = try run(words, via: script)
        expectOneSentence(result, status: status, naming: path, sentence, sourceLocation: sourceLocation)
        #expect(try bytes == before, "the image changed", sourceLocation: sourceLocation)
    }
}

/// One way of every verb that writes, on an image with the snapshot `first`.
let writingVerbs = [
    ["create", "new"], ["apply", "first"], ["apply", "first", "--save-current"], ["delete", "first"],
    ["delete", "--all"], ["rename", "first", "other"],
]

/// Parses an object that the command printed.
func jsonObject(_ text: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
}

extension [UInt8] {
    /// Stores a big-endian integer.
    mutating func store<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        for index in 0..<(Value.bitWidth / 8) {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> (Value.bitWidth - 8 - 8 * index))
        }
    }

    /// Where the snapshot table starts.
    var snapshotTable: Int { self[64..<72].reduce(0) { $0 << 8 | Int($1) } }

    /// Overwrites a text, which must be there behind an offset, with as many bytes.
    mutating func replace(_ text: String, with bytes: some Collection<UInt8>, from start: Int = 0) throws {
        let old = Array(text.utf8)
        #expect(old.count == bytes.count)
        let place = try #require((start...(count - old.count)).first { self[$0..<($0 + old.count)] == old[...] })
        replaceSubrange(place..<(place + old.count), with: bytes)
    }
}
