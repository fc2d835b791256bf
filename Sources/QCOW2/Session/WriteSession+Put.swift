// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// Writes guest data: the only bytes that change outside a commit.
    ///
    /// Goes where the committed state has nothing, or where only the active state's guest data is.
    mutating func put<S: Storage & ~Copyable>(
        _ bytes: Span<UInt8>, at host: HostOffset, in storage: inout S
    ) throws(QCOW2Error) {
        hasUnflushedData = true
        do throws(QCOW2Error) {
            try storage.write(bytes, at: host)
            fileByteCount = max(fileByteCount, host.saturating(adding: UInt64(bytes.count)).rawValue)
        } catch {
            // It may have made the file longer all the same.
            if let byteCount = try? storage.byteCount() { fileByteCount = byteCount }
            throw error
        }
    }
}
