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
                for index in 0..<present { unsafe target[index] = source[start + index] }
            }
            for index in present..<target.count { unsafe target[index] = 0 }
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

/// A change of a storage, as data.
public enum StorageEvent: Hashable, Sendable {
    case write([UInt8], at: HostOffset)
    case flush
    case truncate(toByteCount: UInt64)
    case punchHole(at: HostOffset, byteCount: UInt64)

    /// Does to a file's bytes what the event says.
    public func apply(to bytes: inout [UInt8]) {
        switch self {
        case .write(let data, let offset):
            let end = Int(offset.rawValue) + data.count
            if bytes.count < end { bytes.append(contentsOf: repeatElement(0, count: end - bytes.count)) }
            bytes.replaceSubrange(Int(offset.rawValue)..<end, with: data)
        case .flush: break
        case .truncate(let byteCount):
            let count = Int(byteCount)
            if bytes.count > count { bytes.removeSubrange(count...) }
            bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
        case .punchHole(let offset, let byteCount):
            let start = min(bytes.count, Int(offset.rawValue))
            for index in start..<min(bytes.count, start + Int(byteCount)) { bytes[index] = 0 }
        }
    }
}
