// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation

/// An image to measure on: how it is made, with the real tools.
struct Specimen: Sendable {
    let name: String
    /// Makes the image at a path.
    let make: @Sendable (_ path: String, _ tools: Tools) throws -> Void

    /// The image's path in a folder, made and checked by `qemu-img check` when it isn't there yet.
    func path(in folder: String, _ tools: Tools) throws -> String {
        let path = "\(folder)/\(name).qcow2"
        if !FileManager.default.fileExists(atPath: path) {
            FileHandle.standardError.write(Data("making \(name)\n".utf8))
            let unfinished = path + ".unfinished"
            try? FileManager.default.removeItem(atPath: unfinished)
            try make(unfinished, tools)
            try tools.run(["qemu-img", "check", "-q", unfinished])
            try FileManager.default.moveItem(atPath: unfinished, toPath: path)
        }
        return path
    }

    /// Metadata for every cluster of the disk, in the order of the file.
    static func sequential(_ size: String, _ options: String = "cluster_size=64k") -> Specimen {
        let suffix = options == "cluster_size=64k" ? "" : "-" + options.replacingOccurrences(of: ",", with: "-")
        return Specimen(name: "sequential-\(size)\(suffix)") { path, tools in
            try tools.run([
                "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,\(options)", path, size,
            ])
        }
    }

    /// The same clusters as in a sequential image, at random guest offsets: what years of use make of an image.
    static func shuffled(_ size: String) -> Specimen {
        Specimen(name: "shuffled-\(size)") { path, tools in
            try tools.run(["cp", "--sparse=always", try sequential(size).path(in: tools.folder, tools), path])
            try Shuffle.shuffle(path)
        }
    }

    /// Compressed clusters, several in each host cluster.
    static func compressed(_ size: String, _ byteCount: Int) -> Specimen {
        Specimen(name: "compressed-\(size)") { path, tools in
            // Text that compresses to about a third.
            let source = tools.folder + "/text.raw"
            _ = FileManager.default.createFile(atPath: source, contents: nil)
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: source))
            var random = SystemRandomNumberGenerator()
            for _ in 0..<(byteCount >> 20) {
                var block = Data(capacity: 1 << 20)
                while block.count < 1 << 20 {
                    block.append(Data("\(random.next() % 100_000) lines of a log file\n".utf8))
                }
                try handle.write(contentsOf: block.prefix(1 << 20))
            }
            try handle.close()
            try tools.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", source, path])
            try FileManager.default.removeItem(atPath: source)
        }
    }

    /// A sparse disk with 16 MiB of data in one of so many pieces of 16 MiB.
    static func filled(_ size: String, every step: Int) -> Specimen {
        Specimen(name: "filled-\(size)") { path, tools in
            let source = tools.folder + "/filled.raw"
            try tools.run(["truncate", "-s", size, source])
            let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: source))
            let (end, piece) = (try handle.seekToEnd(), UInt64(16 << 20))
            let random = try FileHandle(forReadingFrom: URL(fileURLWithPath: "/dev/urandom"))
            let data = try random.read(upToCount: Int(piece)) ?? Data()
            for start in stride(from: UInt64(0), to: end, by: Int(piece) * step) {
                try handle.seek(toOffset: start)
                try handle.write(contentsOf: data)
            }
            try handle.close()
            try tools.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, path])
            try FileManager.default.removeItem(atPath: source)
        }
    }

    /// An image with snapshots that our command makes, with guest writes in between.
    static func withSnapshots(_ count: Int, of base: Specimen, name: String? = nil) -> Specimen {
        Specimen(name: name ?? "\(base.name)-\(count)-snapshots") { path, tools in
            try tools.run(["cp", "--sparse=always", try base.path(in: tools.folder, tools), path])
            for number in 1...count {
                if number > 1 {
                    let writes = (0..<8).flatMap { ["-c", "write -P \(number) \($0 * 4 + number)G 64k"] }
                    try tools.run(["qemu-io"] + writes + [path])
                }
                try tools.run([tools.qsnap, "create", path, "s\(number)"])
            }
        }
    }
}

/// The programs that are used, and where images go.
struct Tools: Sendable {
    let qsnap: String
    let folder: String

    func run(_ command: [String]) throws { _ = try Measurement.run([command], limit: .infinity) }
}

/// Permutes the L2 entries of an image whose clusters are all mapped and all used once.
enum Shuffle {
    static func shuffle(_ path: String) throws {
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        defer { try? file.close() }
        func read(_ offset: UInt64, _ count: Int) throws -> [UInt64] {
            try file.seek(toOffset: offset)
            let data = try file.read(upToCount: count * 8) ?? Data()
            return data.withUnsafeBytes { bytes in
                (0..<count).map { UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self)) }
            }
        }
        let header = try read(0, 9)
        let l2EntryCount = 1 << Int((header[2] & 0xFFFF_FFFF) - 3)
        let tables = try read(header[5], Int(header[4] & 0xFFFF_FFFF)).map { $0 & 0x00FF_FFFF_FFFF_FE00 }
        var entries: [UInt64] = []
        for table in tables where table != 0 { entries += try read(table, l2EntryCount) }
        var generator = Splitmix(state: 1)
        entries.shuffle(using: &generator)
        for (index, table) in tables.enumerated() where table != 0 {
            try file.seek(toOffset: table)
            let slice = entries[(index * l2EntryCount)..<((index + 1) * l2EntryCount)].map(\.bigEndian)
            try file.write(contentsOf: slice.withUnsafeBytes { Data($0) })
        }
    }

    private struct Splitmix: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }
}
