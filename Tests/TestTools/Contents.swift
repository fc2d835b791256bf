// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2
import QCOW2Testing

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#endif

/// All that a user can see of an image: its snapshots, and the content of every state.
public struct Contents: Hashable, Sendable {
    /// IDs and names of the snapshots.
    public let names: [String]
    /// The bytes of the active state, then of each snapshot at its own size.
    public let states: [[UInt8]]

    /// Reads everything.
    public init<S: Storage & ~Copyable>(of image: borrowing Image<S>) throws(QCOW2Error) {
        names = image.snapshots.map { "\($0.id) \($0.name)" }
        var states = [try image.read(Int(image.virtualSize), at: GuestOffset(0))]
        for snapshot in image.snapshots {
            states.append(try image.read(Int(snapshot.diskSize), at: GuestOffset(0), of: .snapshot(.id(snapshot.id))))
        }
        self.states = states
    }

    /// Compares as fast as the machine can, in debug builds too.
    public static func == (left: Contents, right: Contents) -> Bool {
        left.names == right.names && left.states.count == right.states.count
            && zip(left.states, right.states).allSatisfy { isSame($0, $1) }
    }

    /// Hashes what is quick to hash.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(names)
        for state in states { hasher.combine(state.count) }
    }

    /// Reads everything of an image in memory.
    public init(of bytes: [UInt8]) throws {
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        try self.init(of: image)
    }
}

/// Compares bytes as fast as the machine can, in debug builds too.
public func isSame(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    left.count == right.count && isSame(left, right, in: 0..<left.count)
}

/// Compares a range of bytes that both must have.
public func isSame(_ left: [UInt8], _ right: [UInt8], in range: Range<Int>) -> Bool {
    guard left.count >= range.upperBound, right.count >= range.upperBound else { return false }
    return unsafe left.withUnsafeBytes { left in
        unsafe right.withUnsafeBytes { right in
            guard let left = left.baseAddress, let right = right.baseAddress else { return true }
            // SAFETY: both were just seen to have the range.
            return unsafe memcmp(left + range.lowerBound, right + range.lowerBound, range.count) == 0
        }
    }
}
