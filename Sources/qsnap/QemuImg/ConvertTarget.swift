// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// What `convert` writes into.
protocol ConvertTarget: ~Copyable {
    /// Bytes of its disk.
    func byteCount() throws(QCOW2Error) -> UInt64
    /// The bytes of a block that is left out when it is all zeros.
    var blockByteCount: Int { get }
    mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error)
    mutating func writeZeros(at offset: UInt64, count: UInt64) throws(QCOW2Error)
    /// Makes all of it last.
    mutating func finish() throws(QCOW2Error)
}

/// A file that is the disk.
struct RawTarget: ConvertTarget, ~Copyable {
    private var file: FileStorage

    /// Opens the file, or creates it at its size; an old one is written over, unless it belongs to what is read.
    init(_ word: [UInt8], isNew: Bool, byteCount: UInt64, reading views: [DiskView]) throws(Refusal) {
        var opened = try Self.open(
            try Source(word, hasOptions: false, sharesByForce: false), isNew: isNew, reading: views)
        do throws(QCOW2Error) {
            if isNew { try opened.truncate(toByteCount: byteCount) }
        } catch {
            throw Refusal("\(word): error while converting raw: \(error.systemReason)")
        }
        file = opened
    }

    var blockByteCount: Int { 4096 }

    func byteCount() throws(QCOW2Error) -> UInt64 { try file.byteCount() }

    mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        try file.write(bytes, at: HostOffset(offset))
    }

    mutating func writeZeros(at offset: UInt64, count: UInt64) throws(QCOW2Error) {
        let zeros = [UInt8](repeating: 0, count: Int(min(count, 1 << 20)))
        var position: UInt64 = 0
        while position < count {
            let part = Int(min(count - position, UInt64(zeros.count)))
            try file.write(zeros.span.extracting(..<part), at: HostOffset(offset + position))
            position += UInt64(part)
        }
    }

    mutating func finish() throws(QCOW2Error) { try file.flush() }

    private static func open(
        _ source: Source, isNew: Bool, reading views: [DiskView]
    ) throws(Refusal) -> FileStorage {
        func opened() throws(QCOW2Error) -> FileStorage {
            if isNew {
                do throws(QCOW2Error) {
                    return try FileStorage(creating: source.path)
                } catch {
                    guard (error.cause as? SystemError)?.isExistingFile == true else { throw error }
                }
            }
            var file = try FileStorage(path: source.path, for: .writing)
            try source.checkIsNot(in: views)
            if isNew { try file.truncate(toByteCount: 0) }
            return file
        }
        do throws(QCOW2Error) {
            return try opened()
        } catch {
            guard isNew else { throw source.opening(error) }
            let opening = source.opening(error)
            let prefix = Array("qemu-img: Could not open '".utf8) + source.word + Array("': ".utf8)
            var reason = Array(opening.lines[0].bytes.dropFirst(prefix.count).dropLast())
            if error.code == .locksUnavailable {
                reason = Array("Failed to lock byte 101: \(error.systemReason)".utf8)
            } else if error.code == .fileExists {
                reason = Array("\(error)".utf8)
            } else if error.cause is SystemError {
                reason = Array("Could not create '\(source.path)': \(error.systemReason)".utf8)
            }
            throw Refusal(
                "\(source.word): error while converting raw: \(reason)", then: Array(opening.lines.dropFirst()))
        }
    }
}

extension Source {
    /// Refuses to write into a file that disks are read from, which locks don't prevent where there are none.
    func checkIsNot(in views: [DiskView]) throws(QCOW2Error) {
        for case let name? in views.map({ $0.file(at: path) }) {
            throw QCOW2Error(.fileExists, "'\(path)' is the file '\(name)', which belongs to what is being read")
        }
    }
}

/// The active state of an image.
struct ImageTarget: ConvertTarget, ~Copyable {
    private var image: Image<FileStorage>

    init(_ image: consuming Image<FileStorage>) { self.image = image }

    /// Partly written clusters would be filled up anyway.
    var blockByteCount: Int { max(4096, min(image.clusterSize, 1 << 20)) }

    func byteCount() throws(QCOW2Error) -> UInt64 { image.virtualSize / 512 * 512 }

    mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        try image.write(bytes, at: GuestOffset(offset))
    }

    mutating func writeZeros(at offset: UInt64, count: UInt64) throws(QCOW2Error) {
        try image.writeZeros(at: GuestOffset(offset), count: count)
    }

    mutating func finish() throws(QCOW2Error) { try image.flush() }
}
