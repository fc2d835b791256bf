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

    /// What the copied flags of a table's entries are.
    struct Flags: Hashable, Sendable {
        /// Some entry carries the flag.
        var isAnySet = false
        /// Some entry refers to a cluster of its own, and could carry the flag, but doesn't.
        var isAnyClear = false
    }

    /// Hands out every run of host clusters that the table refers to, each with the entries' multiplicity.
    ///
    /// - Returns: The copied flags.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that the format forbids or that points out of the file.
    @inline(__always)
    func forEachRun(
        in table: Span<UInt8>, at tableOffset: HostOffset, _ body: (ClusterRun) -> Void
    ) throws(QCOW2Error) -> Flags {
        try forEachTarget(in: table, at: tableOffset) { run, _ in body(run) }
    }

    /// Hands out every run of host clusters that the table refers to, each with the entries' multiplicity, and with
    /// what is compressed there if it is the target of a compressed cluster.
    ///
    /// - Returns: The copied flags.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that the format forbids or that points out of the file.
    @inline(__always)
    func forEachTarget(
        in table: Span<UInt8>, at tableOffset: HostOffset, _ body: (ClusterRun, CompressedCluster?) -> Void
    ) throws(QCOW2Error) -> Flags {
        try forEachRun(in: table, splitting: false) { run, _, _ in
            body(run, nil)
        } odd: { (entry, position, flags) throws(QCOW2Error) in
            guard let run = try target(of: entry, in: table, position, tableOffset) else { return }
            if !entry.isCompressed { flags.note(entry.rawValue) }
            body(run, entry.isCompressed ? entry.compressed(in: geometry) : nil)
        }
    }

    /// Both of all copied flags of a table so far: whether any is set, and whether all are.
    struct FlagBits {
        var anySet: UInt64 = 0
        var allSet: UInt64 = .max

        @inline(__always)
        mutating func note(_ raw: UInt64) {
            anySet |= raw
            allSet &= raw
        }

        @inline(__always)
        mutating func note(any: UInt64, all: UInt64) {
            anySet |= any
            allSet &= all
        }
    }

    /// Hands out runs of host clusters for plain entries, and every other entry that isn't zero by itself.
    ///
    /// - Parameters:
    ///   - table: The table.
    ///   - isSplitting: Whether a run has one copied flag and belongs to neighbouring entries, which makes it shorter;
    ///     then everything comes in the entries' order.
    ///   - body: Gets a run, its first entry as it is, and that entry's index.
    ///   - odd: Gets an entry that isn't plain, and its byte in the table; notes its flag if it has one.
    /// - Returns: The copied flags of the plain entries, and of those noted.
    /// - Throws: What `odd` throws.
    @inline(__always)
    func forEachRun(
        in table: Span<UInt8>, splitting isSplitting: Bool,
        _ body: (_ run: ClusterRun, _ firstEntry: UInt64, _ firstIndex: Int) -> Void,
        odd: (_ entry: L2Entry, _ position: Int, _ flags: inout FlagBits) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> Flags {
        // What a plain entry has: no bit but the offset's, which is aligned, and the copied flag.
        let oddBits = ~(L2Entry.Bits.hostOffset & ~(geometry.clusterSize - 1) | L2Entry.Bits.copied)
        // What makes the difference between an entry that goes on with a run, and one that doesn't.
        let keyMask = isSplitting ? UInt64.max : ~L2Entry.Bits.copied
        let clusterBits = UInt64(geometry.clusterBits)
        let stride = geometry.l2EntryByteCount
        let isExtended = geometry.hasExtendedL2
        let indexShift = isExtended ? 4 : 3
        var flags = FlagBits()
        var first: UInt64 = 0
        var count: UInt64 = 0
        var firstEntry: UInt64 = 0
        var firstPosition = 0
        var expected = UInt64.max
        var zeroCount = 0
        var position = 0
        while position < geometry.clusterByteCount {
            let raw: UInt64 = table.loadBigEndian(at: position)
            let offset = raw & ~L2Entry.Bits.copied
            let isPlain = !isExtended || isPlainBitmap(table.loadBigEndian(at: position &+ 8), offset)
            // All ones is what is expected when no run goes on, and an entry that no run may take in.
            if raw & keyMask == expected, isPlain, raw != .max {
                flags.note(raw)
                count &+= 1
                expected &+= geometry.clusterSize
                if expected & ~L2Entry.Bits.copied >= fileByteCount { expected = .max }
                // In the midst of a run: as many entries at once as go on with it.
                if count == 16, !isExtended {
                    let found = continuation(of: expected, in: table, from: position &+ stride, keyMask)
                    flags.note(any: found.any, all: found.all)
                    count &+= UInt64(found.count)
                    expected &+= UInt64(found.count) << clusterBits
                    if found.count > 0, expected & ~L2Entry.Bits.copied >= fileByteCount { expected = .max }
                    position &+= found.count &* stride
                }
            } else if offset != 0, offset & oddBits == 0, offset < fileByteCount, isPlain {
                flags.note(raw)
                if count > 0 { body(ClusterRun(first: first, count: count), firstEntry, firstPosition >> indexShift) }
                first = offset >> clusterBits
                count = 1
                firstEntry = raw
                firstPosition = position
                // A run ends with the file, where the next entry is looked at by itself.
                expected =
                    offset &+ geometry.clusterSize < fileByteCount ? (raw & keyMask) &+ geometry.clusterSize : .max
            } else if raw != 0 || !isPlain {
                // Neighbours are handed out in their order, where somebody compares them.
                if isSplitting {
                    if count > 0 {
                        body(ClusterRun(first: first, count: count), firstEntry, firstPosition >> indexShift)
                    }
                    count = 0
                    expected = .max
                }
                try odd(L2Entry(rawValue: raw), position, &flags)
            } else {
                if isSplitting { expected = .max }
                // In the midst of nothing: the same.
                zeroCount &+= 1
                if zeroCount & 15 == 0, !isExtended { position &+= emptyByteCount(in: table, from: position &+ stride) }
            }
            position &+= stride
        }
        if count > 0 { body(ClusterRun(first: first, count: count), firstEntry, firstPosition >> indexShift) }
        return Flags(
            isAnySet: flags.anySet & L2Entry.Bits.copied != 0,
            isAnyClear: flags.anySet != 0 && flags.allSet & L2Entry.Bits.copied == 0)
    }

    /// How many entries of a table, in steps of 32, go on with a run: what they refer to is one cluster further each,
    /// and nothing else is in those bits of them that count.
    ///
    /// A loop for vector instructions, which the one over all entries can't be.
    ///
    /// - Returns: The number of entries, and all their bits: those that any has, and those that all have.
    @inline(__always)
    private func continuation(
        of expected: UInt64, in table: Span<UInt8>, from start: Int, _ keyMask: UInt64
    ) -> (count: Int, any: UInt64, all: UInt64) {
        var (count, any, all): (Int, UInt64, UInt64) = (0, 0, .max)
        let step = 32
        var next = expected
        var position = start
        while position &+ step &* 8 <= geometry.clusterByteCount {
            let entries = table.extracting(position..<(position &+ step &* 8))
            // Not past the end of the file, where an entry needs a look by itself.
            let offset = next & ~L2Entry.Bits.copied
            guard offset < fileByteCount, fileByteCount &- offset > UInt64(step) &* geometry.clusterSize else { break }
            var (difference, anyHere, allHere): (UInt64, UInt64, UInt64) = (0, 0, .max)
            var wanted = next
            for index in 0..<step {
                let raw: UInt64 = entries.loadBigEndian(at: index &* 8)
                difference |= (raw & keyMask) ^ wanted
                anyHere |= raw
                allHere &= raw
                wanted &+= geometry.clusterSize
            }
            guard difference == 0 else { break }
            any |= anyHere
            all &= allHere
            count &+= step
            next = wanted
            position &+= step &* 8
        }
        return (count, any, all)
    }

    /// How many bytes of a table of plain entries are zeros, in steps of 256.
    @inline(__always)
    private func emptyByteCount(in table: Span<UInt8>, from start: Int) -> Int {
        var position = start
        while position &+ 256 <= geometry.clusterByteCount {
            let entries = table.extracting(position..<(position &+ 256))
            var any: UInt64 = 0
            for index in 0..<32 { any |= entries.loadBigEndian(at: index &* 8, as: UInt64.self) }
            guard any == 0 else { break }
            position &+= 256
        }
        return position &- start
    }

    /// Whether the bitmap beside an entry that is plain otherwise forbids nothing.
    @inline(__always)
    private func isPlainBitmap(_ bitmap: UInt64, _ offset: UInt64) -> Bool {
        bitmap & (bitmap >> 32) & 0xFFFF_FFFF == 0 && (offset != 0 || bitmap & 0xFFFF_FFFF == 0)
    }

    /// The clusters that one entry of any kind refers to.
    ///
    /// Invariants I-7 and I-12 to I-14.
    @inline(never)
    func target(
        of entry: L2Entry, in table: Span<UInt8>, _ position: Int, _ tableOffset: HostOffset
    ) throws(QCOW2Error) -> ClusterRun? {
        var defect = entry.defect(in: geometry)
        if geometry.hasExtendedL2 {
            let bitmap = SubclusterBitmap(rawValue: table.loadBigEndian(at: position + 8))
            defect = defect ?? bitmap.defect(beside: entry)
        }
        let place = tableOffset.saturating(adding: UInt64(position))
        if let defect { throw .invalid("L2 entry", "\(defect) in 0x\(String(entry.rawValue, radix: 16))", at: place) }
        switch entry.mapping(in: geometry) {
        case .unallocated, .zero(preallocated: nil): return nil
        case .standard(let offset), .zero(preallocated: .some(let offset)):
            guard geometry.isAligned(offset) else { throw .misaligned("L2 entry", offset, at: place) }
            guard offset.rawValue < fileByteCount else { throw .beyondEnd("L2 entry", offset, at: place) }
            return ClusterRun(first: geometry.cluster(at: offset), count: 1)
        case .compressed(let compressed):
            // The last sector may be cut off by the end of the file.
            guard compressed.offset.rawValue < fileByteCount,
                compressed.end < fileByteCount + ImageGeometry.sectorSize
            else { throw .beyondEnd("L2 entry", compressed.offset, at: place) }
            return compressed.run(in: geometry)
        }
    }

    /// Calls `body` with every entry that refers to a cluster of its own, and so could carry the copied flag.
    func forEachFlag(
        in table: Span<UInt8>, _ body: (_ index: Int, _ cluster: UInt64, _ isCopied: Bool) -> Void
    ) {
        for index in 0..<geometry.l2EntryCount {
            let entry = L2Entry(rawValue: table.loadBigEndian(at: index &* geometry.l2EntryByteCount))
            if let offset = entry.ownCluster { body(index, geometry.cluster(at: offset), entry.isCopied) }
        }
    }

    /// Gives every entry of a table the copied flag that `flags` says.
    func apply(_ flags: CopiedFlags, to table: inout MutableSpan<UInt8>) {
        let stride = geometry.l2EntryByteCount
        switch flags {
        case .allClear:
            for index in 0..<geometry.l2EntryCount {
                let raw: UInt64 = table.span.loadBigEndian(at: index &* stride)
                table.storeBigEndian(raw & ~L2Entry.Bits.copied, at: index &* stride)
            }
        case .allSet:
            for index in 0..<geometry.l2EntryCount {
                let raw: UInt64 = table.span.loadBigEndian(at: index &* stride)
                // Without a branch: an offset turns into the top bit, unless the cluster is compressed.
                let offset = raw & L2Entry.Bits.hostOffset
                let isOwn = (offset | (0 &- offset)) & ~(raw << 1) & L2Entry.Bits.copied
                table.storeBigEndian(raw & ~L2Entry.Bits.copied | isOwn, at: index &* stride)
            }
        case .mixed(let bits):
            for index in 0..<geometry.l2EntryCount {
                let entry = L2Entry(rawValue: table.span.loadBigEndian(at: index &* stride))
                table.storeBigEndian(entry.withCopied(bits[index]).rawValue, at: index &* stride)
            }
        }
    }
}

/// The copied flags that an L2 table should carry.
enum CopiedFlags: Hashable, Sendable {
    /// None: a snapshot reaches everything below the table.
    case allClear
    /// One on every entry that refers to a cluster of its own.
    case allSet
    case mixed(BitSet)

    /// A bit per entry.
    struct BitSet: Hashable, Sendable {
        private var words: [UInt64]

        init(count: Int) { words = [UInt64](repeating: 0, count: (count + 63) / 64) }

        subscript(index: Int) -> Bool { words[index / 64] >> UInt64(index % 64) & 1 == 1 }

        mutating func set(_ index: Int) { words[index / 64] |= 1 << UInt64(index % 64) }

        mutating func set(_ index: Int, to isSet: Bool) {
            if isSet { set(index) } else { words[index / 64] &= ~(1 << UInt64(index % 64)) }
        }
    }
}
