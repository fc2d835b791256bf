// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The parts of a guest cluster that are mapped alike: 32 subclusters with extended L2 entries, or the cluster itself.
///
/// Sections "2.3" and "2.4". Says nothing about compressed clusters, which are mapped as a whole.
struct ClusterUnits: Hashable, Sendable {
    /// Bytes of a unit.
    let byteCount: Int
    let count: Int
    private(set) var bitmap = SubclusterBitmap(rawValue: 0)
    private var whole: SubclusterBitmap.Mapping

    /// The units of an entry without a defect, at a byte position of an L2 table.
    init(_ entry: L2Entry, _ geometry: ImageGeometry, in table: Span<UInt8>, at position: Int) {
        count = geometry.hasExtendedL2 ? SubclusterBitmap.subclusterCount : 1
        byteCount = geometry.clusterByteCount / count
        if geometry.hasExtendedL2 { bitmap = SubclusterBitmap(rawValue: table.loadBigEndian(at: position + 8)) }
        whole =
            switch entry.mapping(in: geometry) {
            case .unallocated: .unallocated
            case .zero: .zero
            case .standard, .compressed: .allocated
            }
    }

    subscript(index: Int) -> SubclusterBitmap.Mapping {
        get { count == 1 ? whole : bitmap.mapping(ofSubcluster: index) }
        set {
            if count == 1 { whole = newValue } else { bitmap.set(newValue, ofSubcluster: index) }
        }
    }

    /// Gives every unit bytes of its own.
    mutating func allocateAll() {
        whole = .allocated
        if count > 1 { bitmap = .allAllocated }
    }

    /// Whether some unit is mapped so.
    func contains(_ mapping: SubclusterBitmap.Mapping) -> Bool { (0..<count).contains { self[$0] == mapping } }
}
