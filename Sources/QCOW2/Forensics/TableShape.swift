// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Tells L1 and L2 tables from other bytes, by what their entries say.
///
/// What has the shape may still be something else: a cluster of zeros but for one number has it, too. So a table is
/// believed only together with what it points to.
struct TableShape: Sendable {
    let geometry: ImageGeometry
    let fileByteCount: UInt64

    /// Where L1 entries point; `nil` when one can't be an L1 entry of this file, or two point to one L2 table.
    ///
    /// No tree of this format uses an L2 table twice.
    /// A table of a file that was cut off may point past its end, but not further than any file goes.
    func l2Tables(ofL1EntriesIn bytes: Span<UInt8>, mayPointPastEnd: Bool = false) -> [HostOffset]? {
        var targets: [HostOffset] = []
        var position = 0
        while position + L1Entry.byteCount <= bytes.count {
            let entry = L1Entry(rawValue: bytes.loadBigEndian(at: position))
            position += L1Entry.byteCount
            guard entry.rawValue != 0 else { continue }
            guard !entry.hasReservedBits, let target = entry.l2Table, geometry.isAligned(target),
                mayPointPastEnd || target.rawValue < fileByteCount
            else { return nil }
            targets.append(target)
        }
        return Self.hasDuplicates(targets.map(\.rawValue)) ? nil : targets
    }

    /// The clusters with the data that L2 entries map; `nil` when one can't be an L2 entry of this file, or two map one
    /// cluster.
    ///
    /// Zero clusters have no data, whatever they keep.
    func data(ofL2EntriesIn bytes: Span<UInt8>) -> [ClusterRun]? {
        var runs: [ClusterRun] = []
        var own: [UInt64] = []
        var position = 0
        while position + geometry.l2EntryByteCount <= bytes.count {
            let entry = L2Entry(rawValue: bytes.loadBigEndian(at: position))
            let bitmapPosition = position + 8
            position += geometry.l2EntryByteCount
            guard entry.rawValue != 0 || geometry.hasExtendedL2 else { continue }
            guard entry.defect(in: geometry) == nil else { return nil }
            if geometry.hasExtendedL2 {
                let bitmap = SubclusterBitmap(rawValue: bytes.loadBigEndian(at: bitmapPosition))
                guard bitmap.defect(beside: entry) == nil else { return nil }
            }
            switch entry.mapping(in: geometry) {
            case .compressed(let compressed):
                guard compressed.offset.rawValue < fileByteCount else { return nil }
                runs.append(compressed.run(in: geometry))
            case .standard(let offset):
                guard geometry.isAligned(offset), offset.rawValue < fileByteCount else { return nil }
                runs.append(ClusterRun(first: geometry.cluster(at: offset), count: 1))
                own.append(offset.rawValue)
            case .zero(let offset):
                guard let offset else { continue }
                guard geometry.isAligned(offset), offset.rawValue < fileByteCount else { return nil }
            case .unallocated: continue
            }
        }
        return Self.hasDuplicates(own) ? nil : runs
    }

    private static func hasDuplicates(_ numbers: [UInt64]) -> Bool {
        let sorted = numbers.sorted()
        return zip(sorted, sorted.dropFirst()).contains { $0 == $1 }
    }
}
