// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2

/// A change that a guest makes, as the library carries it out and as a model of the disk does.
public enum GuestChange: Hashable, Sendable, CustomStringConvertible {
    /// Bytes that depend on the seed and their place, never zero.
    case write(seed: UInt8, at: Int, count: Int)
    case zeros(at: Int, count: Int)
    case discard(at: Int, count: Int)

    /// What to say when it goes wrong.
    public var description: String {
        switch self {
        case .write(let seed, let offset, let count): "write \(seed) at \(offset), \(count)"
        case .zeros(let offset, let count): "zeros at \(offset), \(count)"
        case .discard(let offset, let count): "discard at \(offset), \(count)"
        }
    }

    /// The bytes that are written.
    public static func bytes(seed: UInt8, at offset: Int, count: Int) -> [UInt8] {
        (offset..<(offset + count)).map { seed &+ UInt8(truncatingIfNeeded: $0 >> 9 &* 37) | 1 }
    }

    /// Carries the change out.
    public func perform<S: Storage & ~Copyable>(on image: inout Image<S>) throws(QCOW2Error) {
        switch self {
        case .write(let seed, let offset, let count):
            try image.write(Self.bytes(seed: seed, at: offset, count: count), at: GuestOffset(UInt64(offset)))
        case .zeros(let offset, let count):
            try image.writeZeros(at: GuestOffset(UInt64(offset)), count: UInt64(count))
        case .discard(let offset, let count):
            try image.discard(at: GuestOffset(UInt64(offset)), count: UInt64(count))
        }
    }

    /// Changes a model; a discard changes the `unit`s that it covers whole.
    public func apply(to model: inout [UInt8], unit: Int) {
        switch self {
        case .write(let seed, let offset, let count):
            model.replaceSubrange(
                offset..<(offset + count), with: Self.bytes(seed: seed, at: offset, count: count))
        case .zeros(let offset, let count):
            model.replaceSubrange(offset..<(offset + count), with: repeatElement(0, count: count))
        case .discard(let offset, let count):
            let first = (offset + unit - 1) / unit * unit
            let end = offset + count == model.count ? model.count : (offset + count) / unit * unit
            guard first < end else { return }
            model.replaceSubrange(first..<end, with: repeatElement(0, count: end - first))
        }
    }

    /// A random change of a disk of `byteCount` bytes, mostly of sectors, of up to about three clusters.
    public static func random(
        _ byteCount: Int, clusterSize: Int, using random: inout some RandomNumberGenerator
    ) -> GuestChange {
        let grain = Int.random(in: 0..<4, using: &random) == 0 ? 1 : 512
        let first = Int.random(in: 0..<(byteCount / grain), using: &random) * grain
        var count = min(byteCount - first, Int.random(in: 1...(3 * clusterSize / grain), using: &random) * grain)
        var offset = first
        // Whole clusters often enough, as those go other ways.
        if Int.random(in: 0..<3, using: &random) == 0 {
            offset = first / clusterSize * clusterSize
            count = min(byteCount - offset, (count + clusterSize - 1) / clusterSize * clusterSize)
        }
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return .zeros(at: offset, count: count)
        case 1: return .discard(at: offset, count: count)
        default: return .write(seed: .random(in: 0...255, using: &random), at: offset, count: count)
        }
    }
}
