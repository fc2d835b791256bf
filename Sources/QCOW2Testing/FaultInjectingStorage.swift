// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2

/// A storage in which one operation fails, once.
public struct FaultInjectingStorage: Storage, ~Copyable {
    /// What has happened to the file, as far as it got.
    public private(set) var base: InMemoryStorage
    /// How many operations were tried.
    public private(set) var operationCount = 0
    private let failingOperation: Int?
    private let effect: Effect
    private let counter = Counter()

    /// What the failing operation does before it fails.
    public enum Effect: Hashable, Sendable {
        /// Nothing.
        case none
        /// A write stops half-way, at the border of a sector.
        case half
        /// Everything, and fails all the same.
        case whole
    }

    /// Reads don't mutate the storage, but count as operations.
    private final class Counter { var reads = 0 }

    /// Wraps a file.
    ///
    /// - Parameters:
    ///   - bytes: The file's bytes.
    ///   - index: Which operation fails, counted from 0; `nil` for none.
    ///   - effect: What the failing operation does all the same.
    public init(_ bytes: [UInt8], failingAt index: Int?, effect: Effect = .none) {
        base = InMemoryStorage(bytes)
        failingOperation = index
        self.effect = effect
    }

    /// All operations so far, reads included.
    public var totalOperationCount: Int { operationCount + counter.reads }

    public var name: String { base.name }
    public var isWritable: Bool { base.isWritable }

    public func byteCount() throws(QCOW2Error) -> UInt64 {
        try countRead()
        return try base.byteCount()
    }

    public func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try countRead()
        try base.read(into: &buffer, at: offset)
    }

    public mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        guard isFailing() else { return try base.write(bytes, at: offset) }
        let sectors = bytes.count / 512
        let written =
            switch effect {
            case .none: 0
            case .half: sectors / 2 * 512
            case .whole: bytes.count
            }
        if written > 0 { try base.write(bytes.extracting(..<written), at: offset) }
        throw Self.failure("write", at: offset)
    }

    public mutating func flush() throws(QCOW2Error) {
        guard isFailing() else { return try base.flush() }
        if effect == .whole { try base.flush() }
        throw Self.failure("flush", at: nil)
    }

    public mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        guard isFailing() else { return try base.truncate(toByteCount: byteCount) }
        throw Self.failure("truncate", at: HostOffset(byteCount))
    }

    public mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        guard isFailing() else { return try base.punchHole(at: offset, byteCount: byteCount) }
        throw Self.failure("punch", at: offset)
    }

    private mutating func isFailing() -> Bool {
        defer { operationCount += 1 }
        return operationCount + counter.reads == failingOperation
    }

    private func countRead() throws(QCOW2Error) {
        defer { counter.reads += 1 }
        if operationCount + counter.reads == failingOperation { throw Self.failure("read", at: nil) }
    }

    private static func failure(_ operation: String, at offset: HostOffset?) -> QCOW2Error {
        QCOW2Error(.inputOutput, "The \(operation) failed because a test wants it.", at: offset)
    }
}
