// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Reads guest data of one state of the disk, without applying it.
    ///
    /// Looks up each cluster in the L1 and L2 tables anew: made for small reads. An ``ImageReader`` remembers what it
    /// has looked up, and reads backing files.
    ///
    /// - Parameters:
    ///   - byteCount: How many bytes; past the end of that state's disk there are zeros or VM state.
    ///   - offset: The first byte.
    ///   - state: Which state; a snapshot has its own disk size, which plays no role here.
    /// - Returns: `byteCount` bytes.
    /// - Throws: ``QCOW2Error`` with the code `unsupported` for encrypted data or an external data file,
    ///   `backingFileNotAllowed` for a range that the backing file holds; `noSuchSnapshot`, `ambiguousSnapshot`,
    ///   `corrupt` or `inputOutput`.
    public func read(_ byteCount: Int, at offset: GuestOffset, of state: DiskState = .active) throws(QCOW2Error)
        -> [UInt8]
    {
        try header.encryption.checkReadable()
        try checkDataIsHere()
        let tree = try tree(of: state)
        guard let length = UInt64(exactly: byteCount), !offset.rawValue.addingReportingOverflow(length).overflow else {
            throw QCOW2Error(.limitExceeded, "No disk has \(byteCount) bytes from guest offset \(offset) on.")
        }
        let geometry = header.geometry
        let chain = BackingChain(closedBelow: try backingFile(), of: storage.name)
        let range = offset.rawValue..<(offset.rawValue + length)
        // What guest writes have pending is in memory alone.
        let session = state == .active ? session : nil
        let map =
            if let session {
                ClusterMap(session, for: range)
            } else {
                try ClusterMap(tree, for: range, in: geometry, fileByteCount: storage.byteCount()) {
                    (bytes, offset) throws(QCOW2Error) in try storage.read(into: &bytes, at: offset)
                }
            }
        let layer = ImageLayer(map, header, L2SliceCache(in: geometry, byteCount: 0))
        var result = [UInt8](repeating: 0, count: byteCount)
        var span = result.mutableSpan
        try layer.read(into: &span, at: offset.rawValue) { (bytes, offset) throws(QCOW2Error) in
            if let session, session.read(into: &bytes, at: offset) { return }
            try storage.read(into: &bytes, at: offset)
        } below: { (bytes, offset) throws(QCOW2Error) in
            if let closed = chain.closed { throw closed.error(at: offset) }
            bytes.update(repeating: 0)
        }
        return result
    }
}
