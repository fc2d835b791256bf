// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Collects what is written to neighbouring places, and writes it at once.
///
/// A part of the committer, which alone has a storage to give it.
struct SequentialWriter {
    private static let capacity = 1 << 20

    private var buffer: [UInt8]
    private var start = HostOffset(0)
    private var count = 0

    init(_ geometry: ImageGeometry) {
        buffer = [UInt8](repeating: 0, count: max(Self.capacity, geometry.clusterByteCount))
    }

    /// Writes `byteCount` bytes, which `fill` makes in place.
    mutating func add<S: Storage & ~Copyable>(
        _ byteCount: Int, at offset: HostOffset, to storage: inout S,
        _ fill: (_ bytes: inout MutableSpan<UInt8>, _ storage: borrowing S) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        let isNext = start.rawValue + UInt64(count) == offset.rawValue
        if !isNext || count + byteCount > buffer.count { try finish(&storage) }
        if count == 0 { start = offset }
        try buffer.withMutableSpan(of: count..<(count + byteCount)) { (bytes) throws(QCOW2Error) in
            try fill(&bytes, storage)
        }
        count += byteCount
    }

    /// Writes bytes that are there already.
    mutating func add<S: Storage & ~Copyable>(
        _ bytes: [UInt8], at offset: HostOffset, to storage: inout S
    ) throws(QCOW2Error) {
        try finish(&storage)
        try storage.write(bytes.span, at: offset)
    }

    /// Writes what has been collected.
    mutating func finish<S: Storage & ~Copyable>(_ storage: inout S) throws(QCOW2Error) {
        guard count > 0 else { return }
        let length = count
        count = 0
        try storage.write(buffer.span.extracting(..<length), at: start)
    }
}
