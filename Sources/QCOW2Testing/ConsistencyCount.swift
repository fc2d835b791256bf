// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// An independent judge of an image's metadata: counts every reference by itself, from the raw bytes.
///
/// Shares no code with the library on purpose, and is written for clearness: made for small images in
/// memory. Expects an image whose header and tables are well formed; what isn't in order shows up as findings.
public struct ConsistencyCount: Sendable {
    /// What is wrong, in sentences; empty for a clean image.
    public private(set) var findings: [String] = []
    private let bytes: [UInt8]
    private let clusterBits: Int
    private let entryByteCount: Int
    private let version: Int
    /// References per cluster, as far as the file reaches.
    private var references: [Int]

    private var clusterSize: Int { 1 << clusterBits }

    /// Counts the references in an image.
    public init(_ bytes: [UInt8]) {
        self.init(uncounted: bytes)
        guard (9...21).contains(clusterBits) else {
            findings.append("cluster_bits is \(clusterBits)")
            return
        }
        if version > 2, number(72, 8) & 3 != 0 { findings.append("dirty or corrupt") }
        countAll()
        compareRefcounts()
        checkFlags()
    }

    private init(uncounted bytes: [UInt8]) {
        self.bytes = bytes
        clusterBits = Int(Self.number(bytes, 20, 4))
        version = Int(Self.number(bytes, 4, 4))
        let incompatible = version == 2 ? 0 : Self.number(bytes, 72, 8)
        entryByteCount = incompatible & 16 != 0 ? 16 : 8
        references = [Int](repeating: 0, count: bytes.count / max(512, 1 << min(21, clusterBits)) + 1)
    }

    private func number(_ offset: Int, _ byteCount: Int) -> UInt64 { Self.number(bytes, offset, byteCount) }

    /// A big-endian number; bytes past the end are zeros.
    private static func number(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int) -> UInt64 {
        if byteCount == 8, offset >= 0, offset <= bytes.count - 8 {
            // SAFETY: the eight bytes are inside the array.
            return unsafe bytes.withUnsafeBytes {
                unsafe UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            }
        }
        var result: UInt64 = 0
        for index in offset..<(offset + byteCount) {
            result = result << 8 | UInt64(index < bytes.count ? bytes[index] : 0)
        }
        return result
    }

    private mutating func count(_ offset: Int, _ byteCount: Int) {
        guard byteCount > 0 else { return }
        for cluster in (offset >> clusterBits)...((offset + byteCount - 1) >> clusterBits) {
            if cluster < references.count {
                references[cluster] += 1
            } else {
                findings.append("cluster \(cluster): referred to, past the end of the file")
            }
        }
    }

    /// The file's bytes that the image refers to, in runs of clusters; the rest may hold anything.
    ///
    /// An image whose bytes agree with another's in all of these is that other image to everybody who follows its
    /// references.
    public var referencedRanges: [Range<Int>] {
        var ranges: [Range<Int>] = []
        for (cluster, count) in references.enumerated() where count > 0 {
            let (start, end) = (cluster << clusterBits, min(bytes.count, (cluster + 1) << clusterBits))
            if let last = ranges.last, last.upperBound == start {
                ranges[ranges.count - 1] = last.lowerBound..<end
            } else if start < end {
                ranges.append(start..<end)
            }
        }
        return ranges
    }

    private mutating func countAll() {
        count(0, 1)
        let tableClusters = Int(number(56, 4))
        count(Int(number(48, 8)), tableClusters * clusterSize)
        for entry in 0..<(tableClusters * clusterSize / 8) {
            let block = Int(number(Int(number(48, 8)) + entry * 8, 8))
            if block != 0 { count(block, clusterSize) }
        }
        countTree(Int(number(40, 8)), Int(number(36, 4)))
        for snapshot in snapshotTable().entries { countTree(snapshot.offset, snapshot.count) }
        let table = snapshotTable()
        count(table.start, table.byteCount)
        countExtensions()
    }

    private func snapshotTable() -> (start: Int, byteCount: Int, entries: [(offset: Int, count: Int)]) {
        // Without snapshots nobody looks at where their table would be.
        guard number(60, 4) > 0 else { return (0, 0, []) }
        let start = Int(number(64, 8))
        var position = 0
        var entries: [(offset: Int, count: Int)] = []
        for _ in 0..<Int(number(60, 4)) {
            position = (position + 7) & ~7
            let entry = start + position
            entries.append((Int(number(entry, 8)), Int(number(entry + 8, 4))))
            position += 40 + Int(number(entry + 36, 4)) + Int(number(entry + 12, 2)) + Int(number(entry + 14, 2))
        }
        return (start, position, entries)
    }

    private mutating func countTree(_ table: Int, _ entryCount: Int) {
        count(table, entryCount * 8)
        for index in 0..<entryCount {
            let l2Table = Int(number(table + index * 8, 8) & 0x00FF_FFFF_FFFF_FE00)
            guard l2Table != 0 else { continue }
            count(l2Table, clusterSize)
            for position in entries(l2Table) {
                let target = target(number(position, 8))
                count(target.offset, target.byteCount)
            }
        }
    }

    /// The positions in a table of one cluster whose entries aren't zero.
    private func entries(_ table: Int) -> [Int] {
        var positions: [Int] = []
        var position = table
        while position < table + clusterSize {
            if number(position, 8) != 0 { positions.append(position) }
            position += entryByteCount
        }
        return positions
    }

    /// What an L2 entry refers to, in whole sectors.
    private func target(_ entry: UInt64) -> (offset: Int, byteCount: Int, isCompressed: Bool) {
        if entry >> 62 & 1 == 1 {
            let offsetBits = UInt64(70 - clusterBits)
            let descriptor = entry & (1 << 62 - 1)
            let offset = Int(descriptor & (1 << offsetBits - 1))
            return (offset & ~511, (Int(descriptor >> offsetBits) + 1) * 512, true)
        }
        let offset = Int(entry & 0x00FF_FFFF_FFFF_FE00)
        return (offset, offset == 0 ? 0 : clusterSize, false)
    }

    private mutating func countExtensions() {
        var position = version == 2 ? 72 : Int(number(100, 4))
        let end = number(8, 8) == 0 ? clusterSize : Int(number(8, 8))
        while position + 8 <= end {
            let (type, length) = (number(position, 4), Int(number(position + 4, 4)))
            if type == 0 { return }
            if type == 0x0537_BE77 { count(Int(number(position + 8, 8)), Int(number(position + 16, 8))) }
            if type == 0x2385_2875, number(88, 8) & 1 == 1 {
                countBitmaps(Int(number(position + 24, 8)), Int(number(position + 16, 8)))
            }
            position += 8 + ((length + 7) & ~7)
        }
    }

    private mutating func countBitmaps(_ directory: Int, _ byteCount: Int) {
        count(directory, byteCount)
        var position = directory
        while position < directory + byteCount {
            let (table, entryCount) = (Int(number(position, 8)), Int(number(position + 8, 4)))
            count(table, entryCount * 8)
            for index in 0..<entryCount {
                let data = Int(number(table + index * 8, 8) & 0x00FF_FFFF_FFFF_FE00)
                if data != 0 { count(data, clusterSize) }
            }
            position += (24 + Int(number(position + 18, 2)) + Int(number(position + 20, 4)) + 7) & ~7
        }
    }

    private func refcount(_ cluster: Int) -> UInt64 {
        let order = version == 2 ? 4 : Int(number(96, 4))
        let perBlock = (clusterSize * 8) >> order
        let (tableIndex, index) = (cluster / perBlock, cluster % perBlock)
        guard tableIndex < Int(number(56, 4)) * clusterSize / 8 else { return 0 }
        let block = Int(number(Int(number(48, 8)) + tableIndex * 8, 8))
        guard block != 0 else { return 0 }
        let bits = 1 << order
        if bits >= 8 { return number(block + index * bits / 8, bits / 8) }
        return number(block + index * bits / 8, 1) >> UInt64(index * bits % 8) & (1 << UInt64(bits) - 1)
    }

    private mutating func compareRefcounts() {
        for cluster in 0...(references.count + 64) {
            let counted = cluster < references.count ? UInt64(references[cluster]) : 0
            let stored = refcount(cluster)
            if stored < counted { findings.append("cluster \(cluster): refcount \(stored), references \(counted)") }
            if stored > counted { findings.append("cluster \(cluster): leaked, \(stored) instead of \(counted)") }
        }
    }

    /// The copied flags of the active tree: set exactly where the refcount is one.
    private mutating func checkFlags() {
        for index in 0..<Int(number(36, 4)) {
            let entry = number(Int(number(40, 8)) + index * 8, 8)
            let l2Table = Int(entry & 0x00FF_FFFF_FFFF_FE00)
            guard l2Table != 0 else { continue }
            if (entry >> 63 == 1) != (refcount(l2Table >> clusterBits) == 1) {
                findings.append("L1 entry \(index): wrong copied flag")
            }
            for position in entries(l2Table) {
                let entry = number(position, 8)
                let offset = Int(entry & 0x00FF_FFFF_FFFF_FE00)
                let isData = entry >> 62 & 1 == 0 && offset != 0
                if (entry >> 63 == 1) != (isData && refcount(offset >> clusterBits) == 1) {
                    findings.append("L2 entry at \(position): wrong copied flag")
                }
            }
        }
    }
}

extension ConsistencyCount {
    /// A tree, cluster by cluster.
    public struct Tree: Sendable {
        /// The clusters of its L1 table.
        public var l1Clusters: Set<Int> = []
        /// Its distinct L2 tables' clusters, and the clusters that each refers to.
        public var l2Targets: [Int: Set<Int>] = [:]
        /// How many entries of its L2 tables refer to clusters, a table that is in the tree twice counted twice.
        public var mappedCount = 0
        /// How many of those are compressed.
        public var compressedCount = 0
        /// How many sectors the compressed ones touch, each counted by itself.
        public var compressedSectorCount = 0
    }

    /// Every tree, the active one first.
    public func trees() -> [Tree] {
        [tree(Int(number(40, 8)), Int(number(36, 4)))] + snapshotTable().entries.map { tree($0.offset, $0.count) }
    }

    private func tree(_ table: Int, _ entryCount: Int) -> Tree {
        var tree = Tree()
        tree.l1Clusters = Set(clusters(table, entryCount * 8))
        for index in 0..<entryCount {
            let l2Table = Int(number(table + index * 8, 8) & 0x00FF_FFFF_FFFF_FE00)
            guard l2Table != 0 else { continue }
            var targets: Set<Int> = []
            for position in stride(from: l2Table, to: l2Table + clusterSize, by: entryByteCount) {
                let target = target(number(position, 8))
                guard target.byteCount > 0 else { continue }
                targets.formUnion(clusters(target.offset, target.byteCount))
                tree.mappedCount += 1
                guard target.isCompressed else { continue }
                tree.compressedCount += 1
                tree.compressedSectorCount += target.byteCount / 512
            }
            tree.l2Targets[l2Table >> clusterBits] = targets
        }
        return tree
    }

    private func clusters(_ offset: Int, _ byteCount: Int) -> Range<Int> {
        byteCount > 0 ? (offset >> clusterBits)..<(((offset + byteCount - 1) >> clusterBits) + 1) : 0..<0
    }

    /// The clusters that something refers to.
    public var referencedClusters: Set<Int> { Set(references.indices.filter { references[$0] > 0 }) }

    /// The clusters with a refcount, as far as one can lie in the file or closely behind it.
    ///
    /// Counts no references.
    public static func usedClusters(in bytes: [UInt8]) -> Set<Int> {
        let image = ConsistencyCount(uncounted: bytes)
        return Set((0..<((bytes.count >> image.clusterBits) + 64)).filter { image.refcount($0) > 0 })
    }
}
