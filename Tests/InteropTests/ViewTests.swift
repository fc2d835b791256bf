// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Views against what qemu-img reads, and extents against what it maps.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct ViewTests {
    /// Each layout of the matrix once, whatever the width of its refcounts, which reading doesn't look at.
    static let layouts: [Layout] = {
        var seen: Set<String> = []
        return MatrixTests.layouts.map { layout in
            var alike = layout
            alike.refcountBits = 16
            return alike
        }.filter { !$0.isEncrypted && seen.insert($0.testDescription).inserted }
    }()

    @Test("Every state reads as qemu-img reads it, at its own size, and is mapped alike", arguments: layouts)
    func matrix(_ layout: Layout) throws {
        let unit = layout.clusterSize
        let count = unit > 65536 ? 5 : 40
        var disk = try TestDisk(layout, byteCount: unit * count)
        try look(at: disk, "fresh")
        try disk.write([
            .pattern(0x11, at: 0, count: unit), .pattern(0x12, at: unit + unit / 2, count: unit),
            .zeros(at: 3 * unit, count: unit / 2),
        ])
        if unit <= 65536 {
            try disk.write([
                .pattern(0x13, at: 7 * unit, count: 5 * unit), .zeros(at: 8 * unit, count: unit),
                .unmappedZeros(at: 10 * unit, count: unit), .discard(at: 11 * unit, count: unit),
            ])
            if !layout.features.contains(.preallocated) {
                try disk.write((20..<26).map { .compressed(UInt8($0), at: $0 * unit, count: unit) })
            }
        }
        try create("first", &disk)
        try look(at: disk, "first")
        try disk.write([.pattern(0x21, at: unit / 2, count: unit), .zeros(at: 2 * unit, count: unit / 2)])
        if layout.version == 3 { try disk.resize(to: (count + 7) * unit + 512) }
        try disk.write([.pattern(0x22, at: disk.active.count - unit, count: unit)])
        try create("second", &disk)
        if layout.version == 3 { try disk.resize(to: (count - 2) * unit) }
        try disk.write([.pattern(0x31, at: unit, count: 512)])
        try look(at: disk, "third")
    }

    private func create(_ name: String, _ disk: inout TestDisk) throws {
        try Tool.check("qemu-img", ["snapshot", "-c", name] + disk.snapshotWords)
        disk.created(name)
    }

    private func look(at disk: TestDisk, _ step: String) throws {
        try disk.verify(step)
        try disk.verifyStates(step)
        try expectSameMap(disk.path, step)
    }

    @Test("A chain of three, each of another size and cluster size, is read and mapped as by qemu-img")
    func chain() throws {
        let folder = try TemporaryFolder()
        try Tool.check("qemu-img", ["create", "-q", "-f", "raw", folder.file("base.raw"), "300k"])
        try Tool.check("qemu-io", ["-f", "raw", "-c", "write -P 0x11 0 300k", folder.file("base.raw")])
        for (name, backing, format, options, size, writes) in [
            (
                "middle", "base.raw", "raw", "cluster_size=4k", "1M",
                ["write -P 0x21 100k 32k", "write -z 200k 8k", "write -c -P 0x22 240k 4k", "write -P 0x23 800k 4k"]
            ),
            (
                "short", "middle", "qcow2", "cluster_size=64k,extended_l2=on", "576k",
                ["write -P 0x31 130k 4k", "write -z 320k 64k", "write -P 0x32 512k 6k"]
            ),
            ("top", "short", "qcow2", "cluster_size=2k,compression_type=zstd", "2M", ["write -c -P 0x41 0 2k"]),
        ] {
            let path = folder.file(name)
            try Tool.check(
                "qemu-img",
                ["create", "-q", "-f", "qcow2", "-b", backing, "-F", format, "-o", options, path, size])
            try Tool.check("qemu-io", writes.flatMap { ["-c", $0] } + [path])
            let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
            try Tool.check("qemu-img", ["convert", "-O", "raw", path, folder.file("out.raw")])
            let expected = [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder.file("out.raw"))))
            #expect(isSame(try view.read(expected.count, at: GuestOffset(0)), expected), "\(name)")
            #expect(view.fileNames.count == (name == "middle" ? 2 : name == "short" ? 3 : 4))
            try expectSameMap(path, name)
        }
    }
}

/// One extent in the words that both sides share.
private struct Piece: Hashable {
    var start: UInt64
    var length: UInt64
    let kind: Extent.Kind
    let depth: Int
    /// Where it is in its file, if it is in there as it is, or zeros with clusters kept for them.
    let offset: UInt64?
}

/// Requires that the active state's extents are those of `qemu-img map`.
private func expectSameMap(_ path: String, _ step: String, location: SourceLocation = #_sourceLocation) throws {
    struct Entry: Decodable {
        let start, length: UInt64
        let depth: Int
        let present, zero, data: Bool
        let offset: UInt64?
    }
    let text = try Tool.check("qemu-img", ["map", "--output=json", "-f", "qcow2", path])
    let theirs = try JSONDecoder().decode([Entry].self, from: Data(text.utf8)).map { entry in
        // What qemu-img knows of the file below, such as holes in preallocated clusters, plays no role here.
        let kind: Extent.Kind =
            entry.data ? (entry.offset == nil ? .compressed : .data) : entry.present ? .zero : .unallocated
        return Piece(
            start: entry.start, length: entry.length, kind: kind, depth: entry.depth,
            offset: entry.present ? entry.offset : nil)
    }
    var ours: [Piece] = []
    let view = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory).view()
    try view.forEachExtent { extent throws(QCOW2Error) in
        ours.append(
            Piece(
                start: extent.start.rawValue, length: extent.byteCount, kind: extent.kind, depth: extent.depth,
                offset: extent.hostOffset?.rawValue))
    }
    #expect(merged(ours) == merged(theirs), "\(step)", sourceLocation: location)
}

/// Neighbours that only what was left out kept apart.
private func merged(_ pieces: [Piece]) -> [Piece] {
    pieces.reduce(into: []) { result, piece in
        if let last = result.last, last.kind == piece.kind, last.depth == piece.depth,
            last.offset.map({ $0 + last.length }) == piece.offset
        {
            result[result.count - 1].length += piece.length
        } else {
            result.append(piece)
        }
    }
}
