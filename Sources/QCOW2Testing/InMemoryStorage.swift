// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2

/// A storage in memory that keeps a journal of what was done to it.
public struct InMemoryStorage: Storage, Sendable, ~Copyable {
    /// The file's bytes.
    public private(set) var bytes: [UInt8]
    /// Everything that changed the file, in order.
    public private(set) var journal: [StorageEvent] = []
    public let name = "memory"
    public let isWritable: Bool

    /// A file with these bytes.
    public init(_ bytes: [UInt8], isWritable: Bool = true) {
        self.bytes = bytes
        self.isWritable = isWritable
    }

    public func byteCount() throws(QCOW2Error) -> UInt64 { UInt64(bytes.count) }

    public func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        let start = Int(min(offset.rawValue, UInt64(bytes.count)))
        let present = min(buffer.count, bytes.count - start)
        // SAFETY: both ranges were just cut to what the buffers hold.
        unsafe buffer.withUnsafeMutableBufferPointer { target in
            unsafe bytes.withUnsafeBufferPointer { source in
                if let into = target.baseAddress, let from = source.baseAddress, present > 0 {
                    unsafe into.update(from: from + start, count: present)
                }
            }
            if let into = target.baseAddress {
                unsafe (into + present).update(repeating: 0, count: target.count - present)
            }
        }
    }

    public mutating func write(_ span: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        // SAFETY: the span outlives the copy.
        let copy = unsafe span.withUnsafeBufferPointer { unsafe Array($0) }
        perform(.write(copy, at: offset))
    }

    public mutating func flush() throws(QCOW2Error) { perform(.flush) }

    public mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        perform(.truncate(toByteCount: byteCount))
    }

    public mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        perform(.punchHole(at: offset, byteCount: byteCount))
    }

    private mutating func perform(_ event: StorageEvent) {
        event.apply(to: &bytes)
        journal.append(event)
    }
}
