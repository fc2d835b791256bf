// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// How an image is laid out.
struct Layout: CustomTestStringConvertible, Sendable {
    var version = 3
    var clusterSize = 65536
    var refcountBits = 16
    var features: Set<Feature> = []

    enum Feature: String, Sendable {
        case extendedL2, zstd, backing, preallocated, luks, aes, bitmaps, lazyRefcounts
    }

    var testDescription: String {
        let names = features.map(\.rawValue).sorted()
        return (["v\(version)", "clusters of \(clusterSize)", "\(refcountBits)-bit refcounts"] + names)
            .joined(separator: ", ")
    }

    var isEncrypted: Bool { features.contains(.luks) || features.contains(.aes) }
}

/// A real image under test, changed by qemu-io, with a model of what each of its states must read as.
struct TestDisk {
    let folder: TemporaryFolder
    let layout: Layout
    /// What the active state must read as.
    private(set) var active: [UInt8]
    /// What each snapshot must read as, by name.
    private(set) var snapshots: [String: [UInt8]] = [:]
    private(set) var backing: [UInt8] = []

    var path: String { folder.file("disk.qcow2") }

    private static let secret = ["--object", "secret,id=key0,data=secret"]

    init(_ layout: Layout, byteCount: Int) throws {
        folder = try TemporaryFolder()
        self.layout = layout
        active = [UInt8](repeating: 0, count: byteCount)
        var options = [
            "compat=\(layout.version == 2 ? "0.10" : "1.1")", "cluster_size=\(layout.clusterSize)",
        ]
        if layout.version == 3 { options.append("refcount_bits=\(layout.refcountBits)") }
        if layout.features.contains(.extendedL2) { options.append("extended_l2=on") }
        if layout.features.contains(.zstd) { options.append("compression_type=zstd") }
        if layout.features.contains(.preallocated) { options.append("preallocation=metadata") }
        if layout.features.contains(.lazyRefcounts) { options.append("lazy_refcounts=on") }
        if layout.features.contains(.luks) {
            options += ["encrypt.format=luks", "encrypt.key-secret=key0", "encrypt.iter-time=10"]
        }
        if layout.features.contains(.aes) { options += ["encrypt.format=aes", "encrypt.key-secret=key0"] }
        var arguments = ["create", "-q", "-f", "qcow2"] + (layout.isEncrypted ? Self.secret : [])
        if layout.features.contains(.backing) {
            backing = (0..<byteCount).map { UInt8(truncatingIfNeeded: 0x80 | $0 >> 9) }
            try Data(backing).write(to: URL(fileURLWithPath: folder.file("backing.raw")))
            active = backing
            arguments += ["-b", "backing.raw", "-F", "raw"]
        }
        arguments += ["-o", options.joined(separator: ","), path, "\(byteCount)"]
        // On a busy machine qemu-img sometimes can't time its key derivation, and gives up; a later try works.
        for _ in 0..<200 where layout.features.contains(.luks) {
            if try Tool.run("qemu-img", arguments).status == 0 { return }
            usleep(50_000)
        }
        try Tool.check("qemu-img", arguments)
        if layout.features.contains(.bitmaps) {
            try Tool.check("qemu-img", ["bitmap", "--add", "-g", "65536", path, "bitmap0"])
        }
    }

    /// The words by which QEMU's programs open the image.
    private var source: [String] { source(of: path) }

    private func source(of path: String) -> [String] {
        guard layout.isEncrypted else { return ["-f", "qcow2", path] }
        let format = layout.features.contains(.luks) ? "luks" : "aes"
        return Self.secret + [
            "--image-opts",
            "driver=qcow2,file.filename=\(path),encrypt.format=\(format),encrypt.key-secret=key0",
        ]
    }

    /// The words by which `qemu-img snapshot` opens the image; it has no `-f`.
    var snapshotWords: [String] { snapshotWords(of: path) }

    /// The same for a copy of the image.
    func snapshotWords(of path: String) -> [String] { layout.isEncrypted ? source(of: path) : [path] }

    /// A change that a guest makes.
    enum GuestWrite: CustomStringConvertible {
        case pattern(UInt8, at: Int, count: Int)
        case compressed(UInt8, at: Int, count: Int)
        case zeros(at: Int, count: Int)
        case unmappedZeros(at: Int, count: Int)
        case discard(at: Int, count: Int)

        var description: String {
            switch self {
            case .pattern(let byte, let offset, let count): "write -P \(byte) \(offset) \(count)"
            case .compressed(let byte, let offset, let count): "write -c -P \(byte) \(offset) \(count)"
            case .zeros(let offset, let count): "write -z \(offset) \(count)"
            case .unmappedZeros(let offset, let count): "write -z -u \(offset) \(count)"
            case .discard(let offset, let count): "discard \(offset) \(count)"
            }
        }
    }

    /// Lets qemu-io carry out guest writes.
    mutating func write(_ writes: [GuestWrite]) throws {
        let output = try Tool.check("qemu-io", writes.flatMap { ["-c", $0.description] } + source)
        guard !output.contains("failed") else { throw Tool.Failed(description: output) }
        for write in writes {
            switch write {
            case .pattern(let byte, let offset, let count), .compressed(let byte, let offset, let count):
                for index in offset..<(offset + count) { active[index] = byte }
            case .zeros(let offset, let count), .unmappedZeros(let offset, let count):
                for index in offset..<(offset + count) { active[index] = 0 }
            case .discard:
                // What a discard leaves differs by version and alignment: believe the tool once, then hold us to it.
                active = try content(nil)
            }
        }
    }

    /// Writes as a guest by our own library.
    mutating func writeByUs(_ changes: [GuestChange]) throws {
        let unit = layout.features.contains(.extendedL2) ? layout.clusterSize / 32 : layout.clusterSize
        let isSimple = layout.version == 3 && layout.features.isDisjoint(with: [.backing, .extendedL2])
        var pending: [GuestChange] = []
        for change in changes {
            guard case .discard(let offset, let count) = change, !isSimple else {
                pending.append(change)
                change.apply(to: &active, unit: unit)
                continue
            }
            // Some ranges may stay as they are, by what they hold: each sector reads as before, or as zeros.
            try perform(pending)
            pending = []
            try perform([change])
            let after = try content(nil)
            for start in stride(from: 0, to: active.count, by: 512) {
                let sector = start..<min(active.count, start + 512)
                if after[sector] == active[sector] { continue }
                guard sector.overlaps(offset..<(offset + count)), after[sector].allSatisfy({ $0 == 0 }) else {
                    throw Tool.Failed(description: "\(change) changed the sector at \(start)")
                }
            }
            active = after
        }
        try perform(pending)
    }

    /// Carries changes out, in one opening and one flush.
    private func perform(_ changes: [GuestChange]) throws {
        var image = try Image.open(path, for: .writing)
        image.guestWriteOptions.bitmaps = .drop
        if !backing.isEmpty {
            let backing = backing
            image.guestWriteOptions.backingReader = { offset, count in
                // Safe: a disk of the tests.
                let start = min(Int(offset.rawValue), backing.count)
                let part = backing[start..<min(backing.count, start + count)]
                return Array(part) + [UInt8](repeating: 0, count: count - part.count)
            }
        }
        for change in changes { try change.perform(on: &image) }
        try image.flush()
    }

    /// Lets qemu-io try a guest write, which does nothing when it fails.
    mutating func tryWriting(_ write: GuestWrite) throws {
        let isDone = try Tool.run("qemu-io", ["-c", write.description] + source).status == 0
        guard isDone, case .compressed(let byte, let offset, let count) = write else { return }
        for index in offset..<(offset + count) { active[index] = byte }
    }

    mutating func resize(to byteCount: Int) throws {
        try Tool.check("qemu-img", ["resize", "-q", "--shrink", "-f", "qcow2", path, "\(byteCount)"])
        active = try content(nil)
    }

    /// The model's side of a resize by us: what is added reads as zeros.
    mutating func resized(to byteCount: Int) {
        active = Array(active.prefix(byteCount)) + [UInt8](repeating: 0, count: max(0, byteCount - active.count))
    }

    // The model's side of the verbs, whoever carries them out.
    mutating func created(_ name: String) { snapshots[name] = active }
    mutating func created(_ name: String, as content: [UInt8]) { snapshots[name] = content }
    mutating func wrote(_ content: [UInt8]) { active = content }
    mutating func applied(_ name: String) { active = snapshots[name] ?? [] }
    mutating func deleted(_ name: String) { snapshots[name] = nil }
    mutating func renamed(_ name: String, to newName: String) {
        snapshots[newName] = snapshots[name]
        snapshots[name] = nil
    }

    /// What qemu-img reads of a state.
    func content(_ snapshot: String?) throws -> [UInt8] {
        let output = folder.file("out.raw")
        let selection = snapshot.map { ["-l", "snapshot.name=\($0)"] } ?? []
        let words = layout.isEncrypted ? source : ["-f", "qcow2", path]
        try Tool.check("qemu-img", ["convert", "-O", "raw"] + selection + words + [output])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: output)))
    }

    /// Requires that the image is clean for qemu-img, and that every state reads as the model says.
    func verify(_ step: String, location: SourceLocation = #_sourceLocation) throws {
        try verifyClean(step, location: location)
        let read = try content(nil)
        #expect(isSame(read, active), "\(step): active state, \(layout.testDescription)", sourceLocation: location)
        for (name, expected) in snapshots {
            let read = try content(name)
            // qemu-img reads snapshots at the size of the active state.
            let common = min(read.count, expected.count)
            #expect(
                isSame(read.prefix(common), expected.prefix(common)),
                "\(step): snapshot \(name), \(layout.testDescription)",
                sourceLocation: location)
        }
    }

    /// Requires that our library reads every state, at its own size, as the model says; where it can read it.
    func verifyStates(_ step: String, location: SourceLocation = #_sourceLocation) throws {
        guard !layout.isEncrypted else { return try verify(step, location: location) }
        let reader = try ImageReader(Image.open(path, for: .reading), backing: .sameDirectory)
        let states =
            [(DiskState.active, active)] + snapshots.map { (DiskState.snapshot(.name($0.key)), $0.value) }
        for (state, expected) in states {
            let view = try reader.view(of: state)
            #expect(view.virtualSize == UInt64(expected.count), "\(step): \(state)", sourceLocation: location)
            let read = try view.read(expected.count, at: GuestOffset(0))
            #expect(
                isSame(read, expected), "\(step): \(state), \(layout.testDescription)", sourceLocation: location)
        }
    }

    func verifyClean(_ step: String, location: SourceLocation = #_sourceLocation) throws {
        let words = layout.isEncrypted ? source : ["-f", "qcow2", path]
        let result = try Tool.run("qemu-img", ["check"] + words)
        #expect(
            result.status == 0, "\(step): \(layout.testDescription)\n\(result.output)\(result.errors)",
            sourceLocation: location)
        let names = try Image.open(path, for: .reading).snapshots.map(\.name)
        #expect(Set(names) == Set(snapshots.keys), "\(step)", sourceLocation: location)
    }
}

/// Compares bytes as fast as the machine can, in debug builds too.
func isSame<Bytes: ContiguousBytes & Collection>(_ left: Bytes, _ right: Bytes) -> Bool {
    left.count == right.count
        && left.withUnsafeBytes { left in
            right.withUnsafeBytes { right in
                guard let left = left.baseAddress, let first = right.baseAddress else { return true }
                return memcmp(left, first, right.count) == 0
            }
        }
}
