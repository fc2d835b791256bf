// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The bytes of one image file.
///
/// The contract that the commit, and so every promise about crashes, rests on:
///
/// - Writes, hole punching and changes of length may reach the disk in any order, in part, or not at all, until
///   ``flush()`` returns. Only a flush puts what came before it ahead of what comes after.
/// - A write of one aligned sector of 512 bytes reaches the disk whole or not at all; larger ones may be torn.
/// - There are no short reads and no short writes: an operation does all of its work or throws.
/// - A read sees every earlier write, flushed or not.
/// - After ``flush()`` has thrown, nothing is known about the writes before it; calling it again proves nothing.
public protocol Storage: ~Copyable {
    /// The file's name, for messages.
    var name: String { get }

    /// Whether the storage was opened for writing.
    var isWritable: Bool { get }

    /// The file's length in bytes.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    func byteCount() throws(QCOW2Error) -> UInt64

    /// Bytes that the file system has given to the file, which are fewer where it has holes; `nil` if nobody can tell.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    func allocatedByteCount() throws(QCOW2Error) -> UInt64?

    /// Fills `buffer`; bytes past the end of the file read as zeros.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with the offset.
    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error)

    /// The first part of a range of the file that may hold other bytes than zeros; `nil` when all of it is holes.
    ///
    /// Saves reading what isn't there, and nothing else: returning the whole range is right, too, and is what storages
    /// do that don't implement it.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>?

    /// Writes all of `bytes`, and grows the file if it must.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` with the offset; some of the bytes may have been written.
    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error)

    /// Returns once everything written before is on stable storage.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    mutating func flush() throws(QCOW2Error)

    /// Cuts the file off, or extends it with zeros.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error)

    /// Gives the space of a range back to the file system where that is possible; the range reads as zeros or as
    /// before. The length stays.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``, but not when the file system can't punch holes.
    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error)

    /// Says that a range will be read soon, so that several can be on their way at once; does nothing by default.
    ///
    /// A hint: it promises nothing, fails never, and must return without waiting for the bytes.
    func willRead(_ byteCount: Int, at offset: HostOffset)
}

extension Storage where Self: ~Copyable {
    /// Can't tell.
    public func allocatedByteCount() throws(QCOW2Error) -> UInt64? { nil }

    /// The whole range.
    public func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? { range.isEmpty ? nil : range }

    public func willRead(_ byteCount: Int, at offset: HostOffset) {}

    /// Reads `byteCount` bytes into a new array.
    func readBytes(_ byteCount: Int, at offset: HostOffset) throws(QCOW2Error) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var span = bytes.mutableSpan
        try read(into: &span, at: offset)
        return bytes
    }
}
