// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Something about an image that somebody should know.
///
/// Programs act on ``code`` and ``severity``, which are stable; people read ``message``.
public struct Finding: Hashable, Sendable {
    /// Names the kind of finding, in words joined by hyphens, such as `refcount-too-low`.
    ///
    /// Stable: a code keeps its meaning in all later versions.
    public struct Code: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }
        /// The code itself.
        public var description: String { rawValue }
    }

    /// How bad it is.
    public enum Severity: String, Hashable, Sendable, Comparable, CaseIterable {
        /// This library doesn't know what it means, so nothing is said about whether it is right.
        case unsupported
        /// Worth knowing; nothing is wrong.
        case notice
        /// Space is lost, data is not.
        case leak
        /// The metadata contradicts itself: data is damaged, or a later write may damage it.
        case corruption
        /// The next guest write will silently change a snapshot.
        case critical

        public static func < (lhs: Self, rhs: Self) -> Bool { lhs.rank < rhs.rank }

        private var rank: Int {
            switch self {
            case .unsupported: 0
            case .notice: 1
            case .leak: 2
            case .corruption: 3
            case .critical: 4
            }
        }
    }

    /// How sure it is that what is said is so.
    public enum Confidence: String, Hashable, Sendable, CaseIterable {
        /// All that it depends on was looked at.
        case confirmed
        /// Something else in the file speaks for it.
        case probable
        /// Nothing else in the file speaks for it, or not all was looked at.
        case unconfirmed
    }

    public let code: Code
    public let severity: Severity
    public let confidence: Confidence
    /// Why it isn't sure; `nil` when it is.
    public let confidenceReason: String?
    /// Where in the image file it was found, if it has a place.
    public let offset: HostOffset?
    /// The structure in which it was found, such as `active L1 table`.
    public let table: String?
    /// The entry of ``table`` in which it was found, counted from 0.
    public let index: UInt64?
    /// How many there are of it: neighbouring clusters of which the same is wrong are one finding, with the place of the
    /// first; 1 for all else.
    public let count: UInt64
    /// A whole sentence with the numbers in it.
    public let message: String

    init(
        _ rule: FindingRule, _ message: String, at offset: HostOffset? = nil, in table: String? = nil,
        index: UInt64? = nil, count: UInt64 = 1, _ confidence: Confidence = .confirmed, because reason: String? = nil
    ) {
        code = rule.code
        severity = rule.severity
        self.message = message
        self.offset = offset
        self.table = table
        self.index = index
        self.count = count
        self.confidence = confidence
        confidenceReason = reason
    }
}
