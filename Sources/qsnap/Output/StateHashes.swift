// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Computes the hashes that a manifest has.
enum StateHashes {
    /// SHA-256 of each view's disk; what views share is read once.
    static func disks(
        _ views: [DiskView], _ progress: @escaping @Sendable (Progress) -> Bool
    ) throws(QCOW2Error) -> [String] {
        var hasher = StateHasher(count: views.count)
        try DiskView.readAll(views, progress: progress) { (range, indices, bytes) throws(QCOW2Error) in
            try hasher.update(indices, bytes, range)
        }
        return hasher.finish()
    }

    /// SHA-256 of each view's VM state, if it has one; the same one is read once.
    static func vmStates(_ views: [DiskView]) throws(QCOW2Error) -> [String?] {
        var hashes = [String?](repeating: nil, count: views.count)
        for group in DiskView.groups(views) {
            var known: [UInt64: String] = [:]
            for index in group where views[index].vmStateSize > 0 {
                let view = views[index]
                hashes[index] = known[view.vmStateSize]
                guard hashes[index] == nil else { continue }
                var buffer = [UInt8](repeating: 0, count: 1 << 20)
                let hash = SHA256()
                var position: UInt64 = 0
                while position < view.vmStateSize {
                    let count = Int(min(view.vmStateSize - position, UInt64(buffer.count)))
                    if buffer.count > count { buffer.removeLast(buffer.count - count) }
                    var span = buffer.mutableSpan
                    try view.readVMState(into: &span, at: position)
                    hash.update(buffer.span)
                    position += UInt64(count)
                    guard Interruption.signal == 0 else { throw QCOW2Error(.cancelled, "A signal asked for the end.") }
                }
                hashes[index] = hash.finish()
                known[view.vmStateSize] = hashes[index]
            }
        }
        return hashes
    }

    /// SHA-256 of a file as it is.
    static func file(
        _ view: DiskView, byteCount: UInt64, _ progress: @escaping @Sendable (Progress) -> Bool
    ) throws(QCOW2Error) -> String {
        let hash = SHA256()
        try view.readAll(progress: progress) { (range, bytes) throws(QCOW2Error) in
            // The view is filled up to a whole sector.
            let count = min(range.upperBound.rawValue, byteCount) - min(range.lowerBound.rawValue, byteCount)
            if bytes.isEmpty {
                hash.update(zeroCount: count)
            } else {
                hash.update(bytes.extracting(0..<Int(count)))
            }
        }
        return hash.finish()
    }
}
