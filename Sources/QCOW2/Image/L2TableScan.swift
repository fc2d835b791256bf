// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads the bytes of an L2 table for what they refer to.
///
/// Sections "2.3" to "2.5" and "3.2".
///
/// The walk over all L2 tables is where an operation spends its time, so entries become runs of host clusters here.
struct L2TableScan: Sendable {
    let geometry: ImageGeometry
    /// The file's length: nothing may lie behind it.
    let fileByteCount: UInt64

    /// Hands out every run of host clusters that the table refers to, each with the entries' multiplicity.
    ///
    /// - Returns: Whether any entry carries the copied flag.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that the format forbids or that points out of the file.
    func forEachRun(
        in table: Span<UInt8>, at tableOffset: HostOffset, _ body: (ClusterRun) -> Void
    ) throws(QCOW2Error) -> Bool {
        var flags: UInt64 = 0
        var run = ClusterRun(first: 0, count: 0)
        for position in stride(from: 0, to: geometry.clusterByteCount, by: geometry.l2EntryByteCount) {
            let entry = L2Entry(rawValue: table.loadBigEndian(at: position))
            flags |= entry.rawValue
            var defect = entry.defect(in: geometry)
            if geometry.hasExtendedL2 {
                let bitmap = SubclusterBitmap(rawValue: table.loadBigEndian(at: position + 8))
                defect = defect ?? bitmap.defect(beside: entry)
            }
            let next: ClusterRun
            switch entry.mapping(in: geometry) {
            case _ where defect != nil:
                throw .invalid(
                    "L2 entry", "\(defect ?? "") in 0x\(String(entry.rawValue, radix: 16))",
                    at: tableOffset.saturating(adding: UInt64(position)))
            case .unallocated, .zero(preallocated: nil): continue
            case .standard(let offset), .zero(preallocated: .some(let offset)):
                guard geometry.isAligned(offset) else {
                    throw .misaligned("L2 entry", offset, at: tableOffset.saturating(adding: UInt64(position)))
                }
                guard offset.rawValue < fileByteCount else {
                    throw .beyondEnd("L2 entry", offset, at: tableOffset.saturating(adding: UInt64(position)))
                }
                next = ClusterRun(first: geometry.cluster(at: offset), count: 1)
            case .compressed(let compressed):
                // The last sector may be cut off by the end of the file.
                guard compressed.offset.rawValue < fileByteCount,
                    compressed.end < fileByteCount + ImageGeometry.sectorSize
                else {
                    throw .beyondEnd(
                        "L2 entry", compressed.offset, at: tableOffset.saturating(adding: UInt64(position)))
                }
                next = compressed.run(in: geometry)
            }
            if next.first == run.end, run.count > 0 {
                run.count += next.count
            } else {
                if run.count > 0 { body(run) }
                run = next
            }
        }
        if run.count > 0 { body(run) }
        return flags & L2Entry.Bits.copied != 0
    }

    /// The copied flags that the table should carry, a bit per entry, or `nil` if it carries them already.
    ///
    /// - Parameters:
    ///   - table: The table's bytes.
    ///   - hasOneReference: Whether a host cluster's new refcount is one.
    /// - Returns: The flags to write.
    func correctedFlags(in table: Span<UInt8>, hasOneReference: (UInt64) -> Bool) -> CopiedFlags? {
        var flags = CopiedFlags(entryCount: geometry.l2EntryCount)
        var differs = false
        for index in 0..<geometry.l2EntryCount {
            let entry = L2Entry(rawValue: table.loadBigEndian(at: index * geometry.l2EntryByteCount))
            var isCopied = false
            switch entry.mapping(in: geometry) {
            case .standard(let offset), .zero(preallocated: .some(let offset)):
                isCopied = hasOneReference(geometry.cluster(at: offset))
            case .unallocated, .zero(preallocated: nil), .compressed: break
            }
            if isCopied { flags.set(index) }
            differs = differs || isCopied != entry.isCopied
        }
        return differs ? flags : nil
    }

    /// Gives every entry of a table the copied flag that `flags` says.
    func apply(_ flags: CopiedFlags, to table: inout [UInt8]) {
        var span = table.mutableSpan
        for index in 0..<geometry.l2EntryCount {
            let position = index * geometry.l2EntryByteCount
            let entry = L2Entry(rawValue: span.span.loadBigEndian(at: position))
            span.storeBigEndian(entry.withCopied(flags[index]).rawValue, at: position)
        }
    }
}

/// A bit per entry of an L2 table.
///
/// Holds no memory when all are clear.
struct CopiedFlags: Hashable, Sendable {
    /// No flag is set: what a table that a snapshot reaches must look like.
    static let allClear = CopiedFlags(entryCount: 0)

    private var words: [UInt64]

    init(entryCount: Int) { words = [UInt64](repeating: 0, count: (entryCount + 63) / 64) }

    subscript(index: Int) -> Bool { index / 64 < words.count && words[index / 64] >> UInt64(index % 64) & 1 == 1 }

    mutating func set(_ index: Int) { words[index / 64] |= 1 << UInt64(index % 64) }
}
