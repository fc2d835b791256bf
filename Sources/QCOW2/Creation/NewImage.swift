// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What a new image is to be.
///
/// The defaults are those of `qemu-img create`: version 3, clusters of 64 KiB, refcounts of 16 bits, and nothing
/// allocated.
///
/// ```swift
/// var new = NewImage(virtualSize: 64 << 30)
/// new.backingFile = NewImage.BackingFile(name: "base.qcow2", format: "qcow2")
/// let image = try Image.create("disk.qcow2", new)
/// ```
public struct NewImage: Hashable, Sendable {
    /// Bytes of the disk, a multiple of 512; what an L1 table of 32 MiB can map, at most.
    public var virtualSize: UInt64
    /// 2 or 3; version 2 allows none of the choices below but the cluster size and the backing file.
    public var version = 3
    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    public var clusterSize = 65536
    /// Bits of a refcount: a power of two from 1 to 64.
    ///
    /// With one bit there can be no snapshots.
    public var refcountBits = 16
    /// Whether each cluster has 32 subclusters of its own; needs clusters of at least 16 KiB.
    public var hasExtendedL2 = false
    /// What writers that compress will use.
    public var compressionType = CompressionType.deflate
    /// Whether writers may postpone refcounts under the dirty bit; this library never does.
    public var allowsLazyRefcounts = false
    /// The file that shows through where nothing is allocated.
    ///
    /// Its name is recorded and never opened.
    public var backingFile: BackingFile?
    /// What is allocated at once.
    public var preallocation = Preallocation.off

    /// The file that shows through, as the image will name it.
    public struct BackingFile: Hashable, Sendable {
        /// The name, 1 to 1023 bytes that must fit into the first cluster; relative ones count from the image's folder.
        public var name: String
        /// The format, 1 to 15 bytes, such as `raw` or `qcow2`: guessing it would let a guest choose it.
        public var format: String

        /// A file and its format.
        public init(name: String, format: String) {
            self.name = name
            self.format = format
        }
    }

    /// What a new image allocates at once.
    public enum Preallocation: Hashable, Sendable {
        /// Nothing.
        case off
        /// Every cluster of the disk, in the tables; the file is as long as the disk, but takes hardly any space.
        case metadata
    }

    /// An image with a disk of `virtualSize` bytes, and the defaults.
    public init(virtualSize: UInt64) { self.virtualSize = virtualSize }
}

extension NewImage {
    /// The sizes that follow.
    ///
    /// - Throws: ``QCOW2Error/Code/unsupported`` for what the format doesn't allow, and
    ///   ``QCOW2Error/Code/limitExceeded`` for a disk that is too large.
    func geometry() throws(QCOW2Error) -> ImageGeometry {
        func require(_ condition: Bool, _ why: String) throws(QCOW2Error) {
            if !condition { throw QCOW2Error(.unsupported, why) }
        }
        try require(version == 2 || version == 3, "A new image can have version 2 or 3, not \(version).")
        let sizes = 1 << ImageGeometry.clusterBitsRange.lowerBound...1 << ImageGeometry.clusterBitsRange.upperBound
        try require(
            sizes.contains(clusterSize) && clusterSize.nonzeroBitCount == 1,
            "A cluster can't have \(clusterSize) bytes, only a power of two from 512 to 2 MiB.")
        try require(
            (1...64).contains(refcountBits) && refcountBits.nonzeroBitCount == 1,
            "A refcount can't have \(refcountBits) bits, only a power of two from 1 to 64.")
        if version == 2 {
            try require(refcountBits == 16, "Version 2 has refcounts of 16 bits only.")
            try require(!hasExtendedL2, "Version 2 has no extended L2 entries.")
            try require(compressionType == .deflate, "Version 2 has no compression but deflate.")
            try require(!allowsLazyRefcounts, "Version 2 has no lazy refcounts.")
        }
        try require(
            !hasExtendedL2 || clusterSize >= 16384, "Extended L2 entries need clusters of at least 16 KiB.")
        try require(
            backingFile == nil || preallocation == .off || hasExtendedL2,
            "With a backing file, allocating all clusters needs extended L2 entries, or it would hide the file.")
        try require(
            virtualSize % ImageGeometry.sectorSize == 0, "A disk of \(virtualSize) bytes isn't a multiple of 512.")
        let geometry = ImageGeometry(
            clusterBits: clusterSize.trailingZeroBitCount, refcountOrder: refcountBits.trailingZeroBitCount,
            hasExtendedL2: hasExtendedL2, hasZeroFlag: version == 3 && !hasExtendedL2)
        try geometry.checkDiskSize(virtualSize)
        return geometry
    }
}

extension ImageGeometry {
    /// Checks that a disk can be mapped.
    ///
    /// - Throws: ``QCOW2Error/Code/limitExceeded``.
    func checkDiskSize(_ byteCount: UInt64) throws(QCOW2Error) {
        guard byteCount < 1 << 63, l1EntryCount(forDiskSize: byteCount) <= Self.maximumL1EntryCount else {
            throw QCOW2Error(
                .limitExceeded,
                "A disk of \(byteCount) bytes is larger than clusters of \(clusterSize) bytes can map; "
                    + "use larger ones.")
        }
    }
}
