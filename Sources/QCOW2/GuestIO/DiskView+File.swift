// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension DiskView {
    /// A file without a format, as a disk: its bytes as they are, filled up with zeros to a multiple of 512.
    ///
    /// Whether the file holds an image isn't looked at: that is the caller's decision.
    ///
    /// - Parameter storage: The file; any access will do.
    /// - Throws: ``QCOW2Error/Code/inputOutput``, or ``QCOW2Error/Code/limitExceeded`` for one of 2^62 bytes or more.
    public init(rawFile storage: consuming FileStorage) throws(QCOW2Error) {
        files = [NamedFile(open: storage.name, try storage.identity())]
        let layer = try ChainLayer(raw: storage)
        guard layer.byteCount < 1 << 62 else {
            throw QCOW2Error(.limitExceeded, "'\(layer.file.name)' is longer than any disk.")
        }
        virtualSize = (layer.byteCount + ImageGeometry.sectorSize - 1) & ~(ImageGeometry.sectorSize - 1)
        vmStateSize = 0
        layers = [layer]
        closed = nil
    }
}
