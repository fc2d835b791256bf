// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Reads guest data of one state of the disk, without applying it.
    ///
    /// Looks up each cluster in the L1 and L2 tables anew: made for small reads. An ``ImageReader`` remembers what it
    /// has looked up, and reads backing files.
    ///
    /// - Parameters:
    ///   - byteCount: How many bytes, at most 2 GiB; past the end of that state's disk there are zeros or VM state, as
    ///     far as its L1 table reaches.
    ///   - offset: The first byte.
    ///   - state: Which state; a snapshot has its own disk size, which plays no role here.
    /// - Returns: `byteCount` bytes.
    /// - Throws: ``QCOW2Error`` with the code `unsupported` for encrypted data or an external data file,
    ///   `backingFileNotAllowed` for a range that the backing file holds; `outsideDisk` behind what the L1 table
    ///   reaches, `limitExceeded` or `outOfMemory` for more than can be had at once; `noSuchSnapshot`,
    ///   `ambiguousSnapshot`, `corrupt` or `inputOutput`.
    public func read(_ byteCount: Int, at offset: GuestOffset, of state: DiskState = .active) throws(QCOW2Error)
        -> [UInt8]
    {
        try header.encryption.checkReadable()
        try checkDataIsHere()
        let tree = try tree(of: state)
        let geometry = header.geometry
        // Safe: 4,194,304 entries at most, each below 2^39 bytes.
        let reach = UInt64(tree.l1EntryCount) * geometry.clusterSize * UInt64(geometry.l2EntryCount)
        let end = max(tree.virtualSize, reach)
        guard let length = UInt64(exactly: byteCount), offset.rawValue <= end, length <= end - offset.rawValue else {
            throw QCOW2Error(
                .outsideDisk, "This state of the disk doesn't have \(byteCount) bytes from guest offset \(offset) on.")
        }
        try ReadLength.check(byteCount)
        let chain = try BackingChain(closedBelow: self)
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
