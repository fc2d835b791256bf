// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Where the compressed bytes of a guest cluster are.
///
/// Section "2.5 Compressed cluster descriptor".
struct CompressedCluster: Hashable, Sendable {
    /// Where the first compressed byte is; not aligned.
    let offset: HostOffset
    /// How many sectors of 512 bytes the compressed bytes touch, counting the one with the first byte.
    let sectorCount: UInt64

    /// Decodes bits 0 to 61 of an L2 entry.
    ///
    /// Every bit pattern has a meaning, if not a valid one.
    init(descriptor: UInt64, in geometry: ImageGeometry) {
        let offsetBits = Self.offsetBits(in: geometry)
        // Safe: offsetBits is 49 to 61, and the descriptor has 62 bits, so at most 13 bits remain for the count.
        offset = HostOffset(descriptor & ((1 << offsetBits) - 1))
        sectorCount = (descriptor >> offsetBits) + 1
    }

    /// The end of the last sector touched.
    ///
    /// Can't overflow: the offset has at most 61 bits.
    var end: UInt64 {
        (offset.rawValue & ~(ImageGeometry.sectorSize - 1)) + sectorCount * ImageGeometry.sectorSize
    }

    /// The bytes a decompressor may see, counted from ``offset``.
    var byteCount: UInt64 { end - offset.rawValue }

    /// The host clusters touched; each counts one reference.
    func run(in geometry: ImageGeometry) -> ClusterRun {
        let first = geometry.cluster(at: offset)
        return ClusterRun(first: first, count: geometry.cluster(at: HostOffset(end - 1)) - first + 1)
    }

    static func isOffsetTooLarge(descriptor: UInt64, in geometry: ImageGeometry) -> Bool {
        descriptor & ((1 << offsetBits(in: geometry)) - 1) >= ImageGeometry.hostOffsetLimit
    }

    private static func offsetBits(in geometry: ImageGeometry) -> UInt64 { UInt64(62 - (geometry.clusterBits - 8)) }
}
