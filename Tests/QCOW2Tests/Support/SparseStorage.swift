// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// A file of any length in memory, of which only some parts aren't holes, and that says what was asked of it.
struct SparseStorage: Storage, ~Copyable {
    /// What isn't a hole, in ascending order and apart.
    private let parts: [(start: UInt64, bytes: [UInt8])]
    private let length: UInt64
    let tally = CountingStorage.Tally()
    let name = "sparse"
    let isWritable = false

    init(_ parts: [(start: UInt64, bytes: [UInt8])], length: UInt64) {
        self.parts = parts.sorted { $0.start < $1.start }
        self.length = length
    }

    func byteCount() throws(QCOW2Error) -> UInt64 { length }

    func allocatedByteCount() throws(QCOW2Error) -> UInt64? { parts.reduce(0) { $0 + UInt64($1.bytes.count) } }

    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? {
        tally.requestedByteCount += 1
        for part in parts {
            let end = min(part.start + UInt64(part.bytes.count), range.upperBound)
            let start = max(part.start, range.lowerBound)
            if start < end { return start..<end }
        }
        return nil
    }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        tally.requestedByteCount += buffer.count
        for index in buffer.indices { buffer[index] = 0 }
        let end = offset.rawValue + UInt64(buffer.count)
        for part in parts where part.start < end && part.start + UInt64(part.bytes.count) > offset.rawValue {
            for position in max(part.start, offset.rawValue)..<min(end, part.start + UInt64(part.bytes.count)) {
                buffer[Int(position - offset.rawValue)] = part.bytes[Int(position - part.start)]
            }
        }
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) { tally.changeCount += 1 }
    mutating func flush() throws(QCOW2Error) { tally.changeCount += 1 }
    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) { tally.changeCount += 1 }
    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) { tally.changeCount += 1 }
}
