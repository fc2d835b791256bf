// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How far an operation has come.
public struct Progress: Hashable, Sendable {
    /// Bytes that have been read or written: of metadata, or of the disk when that is read.
    public var completed: UInt64
    /// Bytes that will have been, as far as is known; never less than `completed`.
    public var total: UInt64
}

/// Counts an operation's work, and asks between batches whether it should go on.
struct WorkMeter {
    private var progress = Progress(completed: 0, total: 0)
    private let report: (@Sendable (Progress) -> Bool)?

    init(_ report: (@Sendable (Progress) -> Bool)?) { self.report = report }

    /// Adds to what is to be done.
    mutating func expect(_ byteCount: UInt64) { progress.total += byteCount }

    /// Whether the caller wants no more work to be done than needs be.
    var isCancelled: Bool { report.map { !$0(progress) } ?? false }

    /// Stops the operation if that is wanted, where nothing new has been done.
    ///
    /// - Throws: ``QCOW2Error/Code/cancelled``.
    mutating func checkForWish() throws(QCOW2Error) { try advance(by: 0) }

    /// Adds to what is done.
    ///
    /// - Throws: ``QCOW2Error/Code/cancelled`` when the operation should stop.
    mutating func advance(by byteCount: UInt64) throws(QCOW2Error) {
        guard let report else { return }
        progress.completed += byteCount
        progress.total = max(progress.total, progress.completed)
        guard report(progress) else { throw QCOW2Error(.cancelled, "The operation was cancelled; nothing changed.") }
    }
}
