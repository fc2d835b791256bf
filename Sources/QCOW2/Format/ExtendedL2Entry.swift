// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The second eight bytes of an extended L2 entry: two bits for each of 32 subclusters.
///
/// Section "2.4 Extended L2 entry".
struct SubclusterBitmap: RawRepresentable, Hashable, Sendable {
    static let subclusterCount = 32
    /// All subclusters read as zeros.
    static let allZero = SubclusterBitmap(rawValue: 0xFFFF_FFFF_0000_0000)
    /// All subclusters are allocated.
    static let allAllocated = SubclusterBitmap(rawValue: 0x0000_0000_FFFF_FFFF)

    var rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Where a subcluster's bytes are.
    enum Mapping: Hashable, Sendable {
        case unallocated
        case zero
        case allocated
    }

    private var allocated: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
    private var zeros: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }

    /// The mapping of a subcluster, 0 to 31.
    ///
    /// An entry with a defect has no meaning; check that first.
    func mapping(ofSubcluster index: Int) -> Mapping {
        let bit: UInt32 = 1 << UInt32(index)
        if zeros & bit != 0 { return .zero }
        return allocated & bit != 0 ? .allocated : .unallocated
    }

    /// Gives a subcluster, 0 to 31, another mapping.
    mutating func set(_ mapping: Mapping, ofSubcluster index: Int) {
        let (allocated, zero) = (UInt64(1) << UInt64(index), UInt64(1) << UInt64(index + 32))
        rawValue &= ~(allocated | zero)
        switch mapping {
        case .unallocated: break
        case .zero: rawValue |= zero
        case .allocated: rawValue |= allocated
        }
    }

    /// What the specification forbids in the bitmap of `entry`, if anything.
    ///
    /// Invariants I-13 and I-14.
    func defect(beside entry: L2Entry) -> String? {
        if entry.rawValue & L2Entry.Bits.compressed != 0 {
            return rawValue == 0 ? nil : "a compressed cluster has subclusters"
        }
        if allocated & zeros != 0 { return "a subcluster is both allocated and zero" }
        if allocated != 0, entry.rawValue & L2Entry.Bits.hostOffset == 0 {
            return "subclusters are allocated without a host cluster"
        }
        return nil
    }
}
