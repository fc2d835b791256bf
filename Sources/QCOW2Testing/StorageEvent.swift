// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2

/// A change of a storage, as data.
public enum StorageEvent: Hashable, Sendable {
    case write([UInt8], at: HostOffset)
    case flush
    case truncate(toByteCount: UInt64)
    case punchHole(at: HostOffset, byteCount: UInt64)

    /// Does to a file's bytes what the event says.
    public func apply(to bytes: inout [UInt8]) { apply(0..<byteCount, to: &bytes) }

    /// How many bytes the event changes; zero where it has no parts.
    var byteCount: Int {
        switch self {
        case .write(let data, _): data.count
        case .punchHole(_, let byteCount): Int(byteCount)
        case .flush, .truncate: 0
        }
    }

    /// Does a part of the event: some of a write's or a hole's bytes, counted from the event's first.
    func apply(_ part: Range<Int>, to bytes: inout [UInt8]) {
        switch self {
        case .write(let data, let offset):
            let start = Int(offset.rawValue) + part.lowerBound
            bytes.setCount(atLeast: start + part.count)
            // SAFETY: the target was just made large enough, and `part` is inside the data.
            _ = unsafe bytes.withUnsafeMutableBytes { target in
                unsafe data.withUnsafeBytes { source in
                    unsafe UnsafeMutableRawBufferPointer(rebasing: target[start..<(start + part.count)])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[part]))
                }
            }
        case .flush: break
        case .truncate(let byteCount):
            let count = Int(byteCount)
            if bytes.count > count { bytes.removeLast(bytes.count - count) }
            bytes.setCount(atLeast: count)
        case .punchHole(let offset, _):
            let start = min(bytes.count, Int(offset.rawValue) + part.lowerBound)
            let count = min(bytes.count - start, part.count)
            guard count > 0 else { return }
            // SAFETY: the range was just cut to the array's end.
            _ = unsafe bytes.withUnsafeMutableBytes { target in
                unsafe UnsafeMutableRawBufferPointer(rebasing: target[start..<(start + count)])
                    .initializeMemory(as: UInt8.self, repeating: 0)
            }
        }
    }
}

extension [UInt8] {
    /// Appends zeros up to a count.
    mutating func setCount(atLeast count: Int) {
        if self.count < count { self += [UInt8](repeating: 0, count: count - self.count) }
    }
}
