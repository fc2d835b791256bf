// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2

/// Holds an implementation of ``QCOW2/Storage`` to its contract, as far as that can be seen without pulling a plug.
///
/// What a crash leaves can't be seen here: that a flush is a barrier is for the implementation to know.
public struct StorageConformance {
    /// What the storage does against the contract, in sentences; empty for a good one.
    public private(set) var violations: [String] = []
    /// What the file must hold.
    private var model: [UInt8]

    /// Tries everything on a storage.
    ///
    /// - Parameter make: Makes a writable storage that holds the given bytes.
    /// - Throws: What the storage throws: nothing here may fail.
    public init<S: Storage & ~Copyable>(_ make: ([UInt8]) throws -> S) throws {
        model = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) }
        var storage = try make(model)
        if !storage.isWritable { violations.append("A storage made for writing says that it is not writable.") }
        try compare(storage, "a new storage")

        try write(Pattern(at: 0, count: 1, 1), &storage, "a write of one byte")
        try write(Pattern(at: 4096, count: 512, 2), &storage, "a write of one sector")
        try write(Pattern(at: 1234, count: 1777, 3), &storage, "a write at odd places")
        try write(Pattern(at: 100, count: 0, 4), &storage, "an empty write")
        try write(Pattern(at: 4990, count: 100, 5), &storage, "a write across the end")
        try write(Pattern(at: 9000, count: 10, 6), &storage, "a write behind the end")
        try write(Pattern(at: 12_000, count: 3 << 20, 7), &storage, "a large write")
        try storage.flush()
        try compare(storage, "a flush")
        try storage.flush()

        try truncate(to: 7777, &storage, "cutting off")
        try truncate(to: 20_000, &storage, "extending")
        try truncate(to: 20_000, &storage, "a change of length to the same")
        try write(Pattern(at: 0, count: 20_000, 9), &storage, "a write of everything")
        try punch(at: 4096, count: 8192, &storage, "punching")
        try punch(at: 15_001, count: 3, &storage, "punching at odd places")
        try punch(at: 19_000, count: 5000, &storage, "punching across the end")
        try truncate(to: 0, &storage, "cutting off everything")
        try write(Pattern(at: 10, count: 10, 8), &storage, "a write into an empty file")
    }

    /// Some bytes to write.
    private struct Pattern {
        let offset: Int
        let bytes: [UInt8]

        init(at offset: Int, count: Int, _ seed: Int) {
            self.offset = offset
            bytes = (0..<count).map { UInt8(truncatingIfNeeded: ($0 ^ seed &* 77) | 1) }
        }
    }

    private mutating func write<S: Storage & ~Copyable>(
        _ pattern: Pattern, _ storage: inout S, _ step: String
    ) throws {
        let bytes = pattern.bytes
        try storage.write(bytes.span, at: HostOffset(UInt64(pattern.offset)))
        let end = pattern.offset + bytes.count
        if !bytes.isEmpty {
            if model.count < end { model.append(contentsOf: repeatElement(0, count: end - model.count)) }
            model.replaceSubrange(pattern.offset..<end, with: bytes)
        }
        try compare(storage, step)
    }

    private mutating func truncate<S: Storage & ~Copyable>(
        to byteCount: Int, _ storage: inout S, _ step: String
    ) throws {
        try storage.truncate(toByteCount: UInt64(byteCount))
        model.removeLast(max(0, model.count - byteCount))
        model.append(contentsOf: repeatElement(0, count: byteCount - model.count))
        try compare(storage, step)
    }

    /// The range may read as before or as zeros, the rest must not change, and neither must the length.
    private mutating func punch<S: Storage & ~Copyable>(
        at offset: Int, count: Int, _ storage: inout S, _ step: String
    ) throws {
        try storage.punchHole(at: HostOffset(UInt64(offset)), byteCount: UInt64(count))
        let range = offset..<min(model.count, offset + count)
        let found = try bytes(of: storage, from: 0, count: model.count)
        for index in range where found[index] == 0 { model[index] = 0 }
        try compare(storage, step)
    }

    private mutating func compare<S: Storage & ~Copyable>(_ storage: borrowing S, _ step: String) throws {
        let byteCount = try storage.byteCount()
        if byteCount != UInt64(model.count) {
            violations.append("After \(step) the length is \(byteCount) instead of \(model.count).")
        }
        // Whole, with what lies behind the end; then in pieces at odd places.
        let expected = model + [UInt8](repeating: 0, count: 1000)
        if try bytes(of: storage, from: 0, count: expected.count) != expected {
            violations.append("After \(step) the bytes are not those written, or not zeros behind the end.")
        }
        for start in stride(from: 1, to: model.count + 500, by: max(1, model.count / 7)) {
            let count = min(333, expected.count - start)
            if try bytes(of: storage, from: start, count: count) != Array(expected[start..<(start + count)]) {
                violations.append("After \(step) reading \(count) bytes at \(start) gives others than reading all.")
            }
        }
        if try bytes(of: storage, from: 1 << 40, count: 100).contains(where: { $0 != 0 }) {
            violations.append("Bytes far behind the end are not zeros.")
        }
    }

    private func bytes<S: Storage & ~Copyable>(
        of storage: borrowing S, from offset: Int, count: Int
    ) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        var span = bytes.mutableSpan
        try storage.read(into: &span, at: HostOffset(UInt64(offset)))
        return bytes
    }
}
