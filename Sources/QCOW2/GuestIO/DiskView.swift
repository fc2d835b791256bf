// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One state of an image's disk, with its own size: the active one or a snapshot's.
///
/// Made by an ``ImageReader``, which it keeps alive. Any number of threads may read one view at once.
public struct DiskView: Sendable {
    /// Bytes of the disk in this state.
    public let virtualSize: UInt64
    /// Bytes of VM state that the snapshot holds: a stream in the format of QEMU's migration; zero without one.
    public let vmStateSize: UInt64
    /// The image first, then its backing files as far as they are open.
    let layers: [ChainLayer]
    let closed: ClosedBackingFile?
    /// Every file that the disk's data may be in, open or not.
    let files: [NamedFile]

    init(_ tree: StateTree, _ layer: ChainLayer, _ chain: BackingChain) {
        virtualSize = tree.virtualSize
        vmStateSize = tree.vmStateSize
        layers = [layer] + chain.layers
        closed = chain.closed
        files = chain.files
    }

    /// Whether the file at a path is one that the disk's data may be in: the image, a file of its backing chain, whether
    /// it was allowed to be opened or not, or an external data file; under whatever name.
    ///
    /// - Returns: How the chain names the file, if it is one.
    public func file(at path: String) -> String? {
        guard let identity = FileStorage.Identity(path: path) else { return nil }
        return files.first { $0.isFile(identity) }?.name
    }

    /// The paths of the files that the disk's data is in: the image, then its backing files as far as they are open.
    ///
    /// ``Extent/depth`` counts in them.
    public var fileNames: [String] { layers.map(\.file.name) }

    /// Fills `buffer` with the disk's bytes from an offset on.
    ///
    /// Bytes that aren't compressed go from the file straight into `buffer`, neighbouring clusters in one system call.
    ///
    /// - Throws: ``QCOW2Error`` with the code `outsideDisk` when the range isn't all inside the disk;
    ///   `backingFileNotAllowed`, or whatever kept it from being opened, when the range needs a backing file that isn't
    ///   open; `unsupported` for encrypted data; `corrupt` or `inputOutput`. The buffer's content is then undefined.
    public func read(into buffer: inout MutableSpan<UInt8>, at offset: GuestOffset) throws(QCOW2Error) {
        try checkInside(offset, UInt64(buffer.count))
        try read(into: &buffer, at: offset.rawValue, from: 0)
    }

    /// The disk's bytes from an offset on, at most 2 GiB, in a new array.
    ///
    /// - Throws: What ``read(into:at:)`` throws; `limitExceeded` or `outOfMemory` for more than can be had at once.
    public func read(_ byteCount: Int, at offset: GuestOffset) throws(QCOW2Error) -> [UInt8] {
        // Before anything is allocated.
        try checkInside(offset, UInt64(max(0, byteCount)))
        try ReadLength.check(byteCount)
        var bytes = [UInt8](repeating: 0, count: max(0, byteCount))
        var span = bytes.mutableSpan
        try read(into: &span, at: offset)
        return bytes
    }

    private func checkInside(_ offset: GuestOffset, _ byteCount: UInt64) throws(QCOW2Error) {
        guard offset.rawValue <= virtualSize, byteCount <= virtualSize - offset.rawValue else {
            throw QCOW2Error(
                .outsideDisk,
                "\(byteCount) bytes at guest offset \(offset) aren't inside the disk, which has \(virtualSize) bytes.")
        }
    }

    /// Reads from a file of the chain, or from what is below the last one.
    private func read(into buffer: inout MutableSpan<UInt8>, at start: UInt64, from depth: Int) throws(QCOW2Error) {
        guard depth < layers.count else {
            if let closed { throw closed.error(at: start) }
            buffer.update(repeating: 0)
            return
        }
        // No deeper than the chain, which has a limit.
        try layers[depth].read(into: &buffer, at: start) { (bytes, offset) throws(QCOW2Error) in
            try read(into: &bytes, at: offset, from: depth + 1)
        }
    }

    /// Fills `buffer` with the VM state's bytes from an offset in the stream on.
    ///
    /// Section "4.3 VM state".
    ///
    /// - Throws: ``QCOW2Error`` with the code `outsideDisk` when the range isn't all inside the VM state; `corrupt`
    ///   when the snapshot's tables are too small for it; or what ``read(into:at:)`` throws.
    public func readVMState(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(QCOW2Error) {
        guard offset <= vmStateSize, UInt64(buffer.count) <= vmStateSize - offset else {
            throw QCOW2Error(
                .outsideDisk,
                "\(buffer.count) bytes at \(offset) aren't inside the VM state, which has \(vmStateSize) bytes.")
        }
        guard let image = layers.first?.image, let file = layers.first?.file else { return }
        let start = try image.map.vmStateStart(behind: virtualSize, byteCount: vmStateSize) + offset
        try image.read(into: &buffer, at: start) { (bytes, offset) throws(QCOW2Error) in
            try file.read(into: &bytes, at: offset)
        } below: { (bytes, _) throws(QCOW2Error) in
            // The backing file has nothing to do with it.
            bytes.update(repeating: 0)
        }
    }
}

extension ClusterMap {
    /// The guest offset at which the VM state starts.
    fileprivate func vmStateStart(behind virtualSize: UInt64, byteCount: UInt64) throws(QCOW2Error) -> UInt64 {
        let index = geometry.l1EntryCount(forDiskSize: virtualSize)
        let (start, overflow) = index.multipliedReportingOverflow(by: l1EntrySpan)
        // Safe: as many entries as there are in the file, each below 2^39 bytes.
        let end = UInt64(entries.count) * l1EntrySpan
        guard !overflow, start <= end, byteCount <= end - start else {
            throw .invalid("VM state size", "\(byteCount) bytes don't fit into the L1 table", at: l1TableOffset)
        }
        return start
    }
}
