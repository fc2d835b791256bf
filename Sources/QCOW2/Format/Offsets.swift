// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A byte position in the image file.
public struct HostOffset: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Bytes from the start of the file.
    public var rawValue: UInt64

    /// A position `rawValue` bytes from the start of the file.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// A position `rawValue` bytes from the start of the file.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    public static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

    /// The offset in hexadecimal, such as `0x10000`.
    public var description: String { "0x\(String(rawValue, radix: 16))" }

    /// The position `distance` bytes further on, stopping at the largest number; for messages only.
    func saturating(adding distance: UInt64) -> HostOffset {
        let (sum, overflow) = rawValue.addingReportingOverflow(distance)
        return HostOffset(overflow ? .max : sum)
    }
}

/// A byte position in the disk that a guest sees.
public struct GuestOffset: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Bytes from the start of the disk.
    public var rawValue: UInt64

    /// A position `rawValue` bytes from the start of the disk.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// A position `rawValue` bytes from the start of the disk.
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    public static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

    /// The offset in hexadecimal, such as `0x10000`.
    public var description: String { "0x\(String(rawValue, radix: 16))" }
}

/// Neighbouring clusters of the image file.
struct ClusterRun: Hashable, Sendable {
    /// The first cluster's index.
    var first: UInt64
    /// How many clusters; never zero.
    var count: UInt64

    /// The index after the last cluster.
    var end: UInt64 { first + count }
}
