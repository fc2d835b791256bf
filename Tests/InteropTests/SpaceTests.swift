// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// What is freed goes back to the file system at once.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct SpaceTests {
    @Test("Deleting a snapshot gives back the space that only it used, unless told not to", arguments: [true, false])
    func delete(_ discards: Bool) throws {
        var disk = try TestDisk(Layout(clusterSize: 65536), byteCount: 64 << 20)
        try disk.write([.pattern(0x11, at: 0, count: 32 << 20)])
        try update(disk) { image throws(QCOW2Error) in try image.createSnapshot(named: "first") }
        disk.created("first")
        // Every second MiB, so that what is freed lies in many places, and not at the end.
        try disk.write((0..<16).map { .pattern(0x22, at: $0 << 21, count: 1 << 20) })
        let before = try allocatedByteCount(disk)
        var options = WriteOptions()
        options.discardsFreedClusters = discards
        try update(disk) { image throws(QCOW2Error) in
            try image.deleteSnapshots([.name("first")], options: options)
        }
        disk.deleted("first")
        let freed = before - (try allocatedByteCount(disk))
        #expect(discards ? freed >= 16 << 20 : freed < 1 << 20, "\(freed) bytes were freed")
        try disk.verify("delete")
    }

    @Test("A file whose end is free becomes shorter")
    func tail() throws {
        var disk = try TestDisk(Layout(clusterSize: 4096), byteCount: 8 << 20)
        try disk.write([.pattern(0x11, at: 0, count: 1 << 20)])
        let before = try Data(contentsOf: URL(fileURLWithPath: disk.path)).count
        try update(disk) { image throws(QCOW2Error) in try image.createSnapshot(named: "first") }
        disk.created("first")
        try disk.write([.pattern(0x22, at: 0, count: 1 << 20)])
        try update(disk) { image throws(QCOW2Error) in try image.applySnapshot(.name("first")) }
        disk.applied("first")
        try update(disk) { image throws(QCOW2Error) in try image.deleteSnapshots([.name("first")]) }
        disk.deleted("first")
        let after = try Data(contentsOf: URL(fileURLWithPath: disk.path)).count
        #expect(after < before + 64 << 10, "\(before), then \(after)")
        try disk.verify("tail")
    }

    private func update<Result>(
        _ disk: TestDisk, _ body: (inout Image<FileStorage>) throws(QCOW2Error) -> Result
    ) throws {
        var image = try Image.open(disk.path, for: .writing)
        _ = try body(&image)
    }

    private func allocatedByteCount(_ disk: TestDisk) throws -> Int {
        var status = stat()
        guard stat(disk.path, &status) == 0 else { throw Tool.Failed(description: "stat failed") }
        return Int(status.st_blocks) * 512
    }
}
