// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The first eight bytes of an L2 entry, exactly as they are on disk.
///
/// Section "2.3 Standard L2 entry".
struct L2Entry: RawRepresentable, Hashable, Sendable {
    var rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Where a guest cluster's bytes are.
    enum Mapping: Hashable, Sendable {
        /// In the backing file; zeros without one.
        case unallocated
        /// Nowhere. The cluster reads as zeros, whichever host cluster it keeps.
        case zero(preallocated: HostOffset?)
        /// In a host cluster.
        case standard(HostOffset)
        /// Compressed, somewhere in one to three host clusters.
        case compressed(CompressedCluster)
    }

    /// Whether the host cluster's refcount is exactly one, so that it may be overwritten in place.
    var isCopied: Bool { rawValue & Bits.copied != 0 }

    func withCopied(_ isCopied: Bool) -> L2Entry {
        L2Entry(rawValue: rawValue & ~Bits.copied | (isCopied ? Bits.copied : 0))
    }

    var isCompressed: Bool { rawValue & Bits.compressed != 0 }

    /// The host cluster that the entry refers to as a whole, whether its bytes are read or not; the one whose refcount
    /// the copied flag speaks of.
    var ownCluster: HostOffset? {
        let offset = rawValue & Bits.hostOffset
        return isCompressed || offset == 0 ? nil : HostOffset(offset)
    }

    /// What bits 0 to 61 say, if the entry is that of a compressed cluster.
    func compressed(in geometry: ImageGeometry) -> CompressedCluster {
        CompressedCluster(descriptor: rawValue & Bits.descriptor, in: geometry)
    }

    func mapping(in geometry: ImageGeometry) -> Mapping {
        guard !isCompressed else { return .compressed(compressed(in: geometry)) }
        let offset = HostOffset(rawValue & Bits.hostOffset)
        let isAllocated = offset.rawValue != 0
        if geometry.hasZeroFlag, rawValue & Bits.zero != 0 { return .zero(preallocated: isAllocated ? offset : nil) }
        return isAllocated ? .standard(offset) : .unallocated
    }

    /// What the specification forbids in this entry, if anything.
    ///
    /// Invariants I-12 and I-13. The offset's alignment and range are the caller's to check.
    func defect(in geometry: ImageGeometry) -> String? {
        if rawValue & Bits.compressed != 0 {
            if rawValue & Bits.copied != 0 { return "a compressed cluster carries the copied flag" }
            return CompressedCluster.isOffsetTooLarge(descriptor: rawValue & Bits.descriptor, in: geometry)
                ? "the offset of a compressed cluster exceeds 56 bits" : nil
        }
        if rawValue & Bits.reserved != 0 { return "reserved bits are set" }
        if rawValue & Bits.zero != 0, !geometry.hasZeroFlag { return "bit 0 is set, which this image doesn't allow" }
        return nil
    }

    enum Bits {
        static let zero: UInt64 = 1 << 0
        static let hostOffset: UInt64 = 0x00FF_FFFF_FFFF_FE00  // bits 9 to 55
        static let reserved: UInt64 = 0x3F00_0000_0000_01FE  // bits 1 to 8 and 56 to 61
        static let descriptor: UInt64 = (1 << 62) - 1
        static let compressed: UInt64 = 1 << 62
        static let copied: UInt64 = 1 << 63
    }
}
