// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A range of the disk that one file maps alike.
struct Segment: Hashable, Sendable {
    /// The first guest byte.
    var start: UInt64
    /// How many bytes; never zero.
    var byteCount: UInt64
    var mapping: Mapping

    enum Mapping: Hashable, Sendable {
        /// In the file below; zeros without one.
        case unallocated
        /// Zeros, perhaps with host clusters kept for later.
        case zero(HostOffset?)
        /// In the file, at this offset and the following ones.
        case data(HostOffset)
        /// A part of one guest cluster that is compressed.
        case compressed(CompressedCluster)
        /// Behind the end of a backing file that is shorter than its overlay: zeros, whatever lies below.
        case pastEnd
    }

    var end: UInt64 { start + byteCount }

    /// Takes in the segment that follows, if it goes on alike.
    mutating func merge(_ next: Segment) -> Bool {
        let isAlike =
            switch (mapping, next.mapping) {
            case (.unallocated, .unallocated), (.zero(nil), .zero(nil)), (.pastEnd, .pastEnd): true
            case (.data(let offset), .data(let nextOffset)), (.zero(let offset?), .zero(let nextOffset?)):
                offset.rawValue + byteCount == nextOffset.rawValue
            default: false
            }
        if isAlike { byteCount += next.byteCount }
        return isAlike
    }
}
