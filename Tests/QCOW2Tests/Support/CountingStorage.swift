// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing

/// A file in memory that says what was asked of it, even after the image that owned it is gone.
struct CountingStorage: Storage, ~Copyable {
    private var base: InMemoryStorage
    let tally = Tally()

    final class Tally {
        /// Bytes that reads asked for, in the file or past its end.
        var requestedByteCount = 0
        /// Writes, flushes, and changes of length.
        var changeCount = 0
    }

    init(_ bytes: [UInt8], isWritable: Bool = true) { base = InMemoryStorage(bytes, isWritable: isWritable) }

    var name: String { base.name }
    var isWritable: Bool { base.isWritable }
    var bytes: [UInt8] { base.bytes }

    func byteCount() throws(QCOW2Error) -> UInt64 { try base.byteCount() }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        tally.requestedByteCount += buffer.count
        try base.read(into: &buffer, at: offset)
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        tally.changeCount += 1
        try base.write(bytes, at: offset)
    }

    mutating func flush() throws(QCOW2Error) {
        tally.changeCount += 1
        try base.flush()
    }

    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        tally.changeCount += 1
        try base.truncate(toByteCount: byteCount)
    }

    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        tally.changeCount += 1
        try base.punchHole(at: offset, byteCount: byteCount)
    }
}
