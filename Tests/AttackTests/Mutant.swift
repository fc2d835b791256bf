// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2Testing

/// A damaged image, as a recipe, so that huge sparse files cost nothing.
///
/// The same seed gives the same one.
struct Mutant: Sendable {
    /// What was damaged, for people.
    let story: String
    private let base: [UInt8]
    private var patches: [(offset: Int, bytes: [UInt8])] = []
    private var byteCount: Int

    init(seed: UInt64, of bases: [(name: String, bytes: [UInt8], fields: ImageFields)]) {
        var random = SplitMix64(seed: seed)
        let (name, bytes, fields) = bases[Int(random.next() % UInt64(bases.count))]
        base = bytes
        byteCount = bytes.count
        var notes = [name]
        // What only few images have comes up as often as what all have.
        let structures = Set(fields.all.map(\.structure)).sorted { $0.rawValue < $1.rawValue }
        for _ in 0..<random.pick([1, 1, 1, 2, 2, 3]) {
            let structure = random.pick(structures)
            let field = random.pick(fields.all.filter { $0.structure == structure })
            let old = bytes[field.offset..<(field.offset + field.byteCount)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let new = Self.value(of: field, old, fields, bytes.count, &random)
            patches.append(
                (field.offset, (0..<field.byteCount).reversed().map { UInt8(truncatingIfNeeded: new >> ($0 * 8)) }))
            notes.append("\(structure) \(field.name): 0x\(String(old, radix: 16)) -> 0x\(String(new, radix: 16))")
        }
        switch random.next() % 24 {
        case 0:
            byteCount = Int.random(in: 512..<bytes.count, using: &random)
            notes.append("cut to \(byteCount)")
        case 1, 2:
            byteCount = 1 << Int.random(in: 27...42, using: &random)
            notes.append("grown to \(byteCount), sparse")
            if Bool.random(using: &random) {
                // The largest refcount table that may be, in a hole.
                let clusters = UInt32(8 << 20 / fields.clusterSize)
                patches.append((48, Self.bytes(UInt64(byteCount / 2), 8)))
                patches.append((56, Self.bytes(UInt64(clusters), 4)))
                notes.append("refcount table in a hole")
            }
        default: break
        }
        story = "seed \(seed): " + notes.joined(separator: "; ")
    }

    private static func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).reversed().map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    private static func value(
        of field: ImageField, _ old: UInt64, _ fields: ImageFields, _ byteCount: Int, _ random: inout SplitMix64
    ) -> UInt64 {
        let cluster = UInt64(fields.clusterSize)
        let end = (UInt64(byteCount) + cluster - 1) / cluster * cluster
        let mask = UInt64.max >> UInt64(64 - field.byteCount * 8)
        // Overlapping, shared and cyclic tables.
        if field.isPointer, field.byteCount == 8, random.next() % 3 == 0 {
            let target = random.pick(fields.targets)
            return target | (Bool.random(using: &random) ? 1 << 63 : 0)
        }
        let kind = random.next() % 16
        let bit: UInt64 = 1 << (random.next() % UInt64(field.byteCount * 8))
        let value: UInt64 =
            switch kind {
            case 0: 0
            case 1: 1
            case 2: .max
            case 3: 1 << UInt64(field.byteCount * 8 - 1)
            case 4, 5, 6: old ^ bit
            case 7: old &+ 1
            case 8: old &- 1
            case 9: old &+ 512
            case 10: end
            case 11: end &+ cluster &* 64
            case 12: old &+ cluster
            case 13: old | 1
            case 14: bit
            default: random.next()
            }
        return value & mask
    }

    /// Writes the file.
    func write(to path: String) throws {
        var bytes = base
        for (offset, patch) in patches { bytes.replaceSubrange(offset..<(offset + patch.count), with: patch) }
        if byteCount < bytes.count { bytes.removeLast(bytes.count - byteCount) }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        if byteCount > bytes.count { truncate(path, byteCount) }
    }

    /// Whether a file is still as it was written.
    func isUnchanged(at path: String) throws -> Bool {
        guard let file = FileHandle(forReadingAtPath: path) else { return false }
        defer { try? file.close() }
        guard try file.seekToEnd() == UInt64(byteCount) else { return false }
        try file.seek(toOffset: 0)
        var expected = base
        for (offset, patch) in patches { expected.replaceSubrange(offset..<(offset + patch.count), with: patch) }
        expected = Array(expected.prefix(byteCount))
        return [UInt8](try file.read(upToCount: expected.count) ?? Data()) == expected
    }
}

extension SplitMix64 {
    /// One of several values; there must be any.
    mutating func pick<Value>(_ values: [Value]) -> Value { values[Int.random(in: values.indices, using: &self)] }
}
