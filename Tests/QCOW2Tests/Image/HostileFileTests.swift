// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Section "7.2 Malformed input" on real files, through the command: the verdict of each verb, and what it costs.
///
/// Of the verbs that write only the row's own is tried; all of them with QCOW2_HOSTILE_ALL=1.
@Suite(.enabled(if: MeasuredCommand.isPossible, "needs GNU time")) struct HostileFileTests {
    private static let writers: [HostileImage.Operation] = [.create, .apply, .delete, .rename]
    private static let triesAll = ProcessInfo.processInfo.environment["QCOW2_HOSTILE_ALL"] == "1"

    @Test(
        "Every verb has the wanted verdict, changes nothing, and costs what the file costs",
        arguments: HostileImageTests.all)
    func verdicts(_ hostile: HostileImage) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("hostile.qcow2")
        let bytes = try hostile.bytes()
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let before = try times(path)
        let refusal = Self.status(of: hostile.code)

        let list = try run(["list", path], bytes.count)
        #expect(list.status == (hostile.operation == .open ? refusal : 0), "\(list.output)")

        let inspection = try run(["inspect", path], bytes.count)
        let hasMagic = bytes.starts(with: [0x51, 0x46, 0x49, 0xFB])
        #expect(inspection.status == (hasMagic ? 0 : 7), "\(inspection.output)")
        #expect(inspection.output.contains("can't be opened") == (hostile.operation == .open))

        let check = try run(["check", path], bytes.count)
        #expect(Self.checkStatuses(of: hostile).contains(check.status), "\(check.status ?? -1) \(check.output)")

        for operation in Self.writers {
            let isOwn = operation == hostile.operation || (hostile.operation == .open && operation == .create)
            guard isOwn || (Self.triesAll && hostile.operation == .open) else { continue }
            let result = try run(words(operation, path), bytes.count)
            #expect(result.status == refusal, "\(operation): \(result.output)")
        }
        let after = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        #expect(after == bytes)
        #expect(try times(path) == before)
    }

    /// What a check may say: an image that is refused for its metadata is corrupt, or can't be checked at all.
    private static func checkStatuses(of hostile: HostileImage) -> Set<Int32?> {
        switch (hostile.operation, hostile.code) {
        case (.open, .corrupt): [1, 2]
        case (.open, let code): [status(of: code)]
        case (.read, _), (.readSnapshot, _): [0, 2]
        case (_, .corrupt): [2]
        // Bits that only say something, leaks, and an external data file with snapshots.
        default: [0, 2, 3]
        }
    }

    /// Runs a command that must end by itself, within the memory and the time that a small file may cost.
    private func run(_ words: [String], _ byteCount: Int) throws -> MeasuredCommand {
        let result = try MeasuredCommand(words)
        #expect(result.status != nil, "\(words[0]) was ended by a signal: \(result.output)")
        // What is larger than 64 KiB may cost more, in proportion.
        let factor = max(1, byteCount >> 16)
        let limit = 64 << 20 + 32 * (factor - 1) << 16
        #expect(result.peakByteCount <= limit, "\(words[0]): \(result.peakByteCount >> 20) MiB")
        #expect(result.seconds <= 1 + 0.1 * Double(factor - 1), "\(words[0]): \(result.seconds) s")
        return result
    }

    private func words(_ operation: HostileImage.Operation, _ path: String) -> [String] {
        switch operation {
        case .apply: ["apply", path, "first"]
        case .delete: ["delete", path, "first"]
        case .rename: ["rename", path, "first", "renamed"]
        default: ["create", path, "new"]
        }
    }

    /// The exit status that the README promises.
    private static func status(of code: QCOW2Error.Code) -> Int32 {
        switch code {
        case .corrupt, .needsRepair: 2
        case .unsupported, .limitExceeded: 6
        case .notQCOW2: 7
        default: 1
        }
    }

    private func times(_ path: String) throws -> [Int] {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return [status.st_mtim.tv_sec, status.st_mtim.tv_nsec, Int(status.st_size)]
    }

    @Test(
        "A name inside the image leads nowhere: the verbs work, and nothing else is opened",
        arguments: ["/dev/full", "hostile.qcow2", "json:{\"driver\":\"nbd\"}", "nbd://192.0.2.1/x"])
    func names(_ name: String) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("hostile.qcow2")
        var image = ImageBytes(bytes: try HostileImage("", at: nil, naming: "") { _ in }.bytes())
        image.set(0x80, at: 8)
        image.set(UInt64(name.utf8.count), 4, at: 16)
        image.set(Array(name.utf8), at: 0x80)
        try Data(image.bytes).write(to: URL(fileURLWithPath: path))
        for words in [
            ["list", path], ["inspect", path], ["create", path, "new"], ["apply", path, "first"],
            ["rename", path, "new", "other"], ["delete", path, "first"],
        ] {
            let result = try run(words, image.bytes.count)
            #expect(result.status == 0, "\(words[0]): \(result.output)")
        }
    }

    /// Rows that no change of a golden image makes: large sparse files, and the bombs.
    @Test("Sparse files that claim as much as they can cost no more than their size in use")
    func sparse() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("hostile.qcow2")
        // A refcount table, an L1 table and snapshots that all reach far into a file of 1 TiB with 8.5 KiB in it.
        var image = ImageBytes(bytes: try HostileImage("", at: nil, naming: "") { _ in }.bytes())
        image.set(4_194_304, 4, at: 36)
        image.set(16384, 4, at: 56)
        try Data(image.bytes).write(to: URL(fileURLWithPath: path))
        #expect(truncate(path, 1 << 40) == 0)
        let list = try MeasuredCommand(["list", path])
        #expect(list.status == 0 && list.peakByteCount < 64 << 20 && list.seconds < 1, "\(list.output)")
        let inspection = try MeasuredCommand(["inspect", "--search", "16", path])
        // 32 MiB of L1 table are really in the file, and are read in pieces.
        #expect(inspection.status == 0 && inspection.peakByteCount < 128 << 20, "\(inspection.peakByteCount >> 20) MiB")
        let create = try MeasuredCommand(["create", path, "new"])
        #expect(
            create.status == 2 && create.peakByteCount < 256 << 20, "\(create.output) \(create.peakByteCount >> 20)")
    }
}
