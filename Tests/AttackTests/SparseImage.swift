// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// An image that is written number by number into a sparse file: what nobody writes is a hole.
struct SparseImage {
    let folder: TemporaryFolder
    var path: String { folder.file("worst.qcow2") }
    let clusterSize: Int

    /// An image of version 3 with the header's fields as they are given, and holes everywhere else.
    init(
        clusterBits: Int, refcountOrder: Int, diskSize: Int, l1: (cluster: Int, count: Int),
        refcountTable: (cluster: Int, clusterCount: Int), byteCount: Int
    ) throws {
        folder = try TemporaryFolder()
        clusterSize = 1 << clusterBits
        guard FileManager.default.createFile(atPath: path, contents: nil), truncate(path, byteCount) == 0 else {
            throw Tool.Failed(description: "\(path) can't be \(byteCount) bytes long")
        }
        let numbers: [(Int, Int, Int)] = [
            (0, 4, 0x5146_49FB), (4, 4, 3), (20, 4, clusterBits), (24, 8, diskSize), (36, 4, l1.count),
            (40, 8, l1.cluster << clusterBits), (48, 8, refcountTable.cluster << clusterBits),
            (56, 4, refcountTable.clusterCount), (96, 4, refcountOrder), (100, 4, 104),
        ]
        for (offset, count, value) in numbers { try put(value, count, at: offset) }
    }

    /// A file with these bytes, grown to a length; where another folder is given, in that.
    init(_ bytes: [UInt8], byteCount: Int? = nil, in parent: String? = nil) throws {
        folder = try TemporaryFolder(in: parent)
        clusterSize = 1 << Int(bytes[23])
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        if let byteCount, truncate(path, byteCount) != 0 {
            throw Tool.Failed(description: "no file can be \(byteCount) bytes long here")
        }
    }

    func put(_ bytes: [UInt8], at offset: Int) throws {
        let file = open(path, O_WRONLY)
        defer { close(file) }
        guard pwrite(file, bytes, bytes.count, offset) == bytes.count else {
            throw Tool.Failed(description: "writing \(path): \(errno)")
        }
    }

    func put(_ value: Int, _ byteCount: Int = 8, at offset: Int) throws {
        try put(Self.bytes(value, byteCount), at: offset)
    }

    static func bytes(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).reversed().map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    /// A table of snapshots, each with a name that is its number.
    static func snapshotTable(_ l1s: [(offset: Int, count: Int)], diskSize: Int) -> [UInt8] {
        var table: [UInt8] = []
        for (index, l1) in l1s.enumerated() {
            let id = Array("\(index + 1)".utf8)
            table += bytes(l1.offset, 8) + bytes(l1.count, 4) + bytes(id.count, 2) + bytes(id.count, 2)
            table += bytes(0, 20) + bytes(16, 4) + bytes(0, 8) + bytes(diskSize, 8) + id + id
            table += [UInt8](repeating: 0, count: -table.count & 7)
        }
        return table
    }

    /// Runs a command of ours, and ends it after some seconds of processor time.
    func run(_ words: [String], seconds: Int = 4, addressSpace: Int? = nil) throws -> LimitedCommand {
        try keep()
        return try LimitedCommand(
            LimitedCommand.qsnap, words.map { $0 == "IMAGE" ? path : $0 },
            .init(seconds: seconds, addressSpace: addressSpace), in: folder)
    }

    /// Keeps the file under its test's name, where QCOW2_ATTACK_FINDINGS says.
    private func keep() throws {
        guard let kept = ProcessInfo.processInfo.environment["QCOW2_ATTACK_FINDINGS"] else { return }
        let name = (Test.current?.name ?? "file").filter(\.isLetter)
        try FileManager.default.createDirectory(atPath: kept, withIntermediateDirectories: true)
        try Tool.check("cp", ["--sparse=always", "--no-clobber", path, "\(kept)/worst-\(name).qcow2"])
    }

    var bytes: [UInt8] {
        get throws { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }
    }
}
