// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Damages the metadata of an image, with the values that parsers stumble over.
///
/// Shares no code with the library. The same choices give the same damage, so that a number is enough to repeat it.
public struct ImageMutator: Sendable {
    /// The image before any damage.
    public let base: [UInt8]
    private let clusterBits: Int
    /// Where numbers of each kind are: the header, then every kind of table.
    private let regions: [Region]

    /// Numbers of one length, next to each other.
    private struct Region: Sendable {
        var offset: Int
        var byteCount: Int
        /// The lengths of fields; 0 where the header's own fields are.
        var unit: Int
    }

    /// The starts and lengths of the header's fields.
    private static let headerFields: [(offset: Int, byteCount: Int)] = [
        (0, 4), (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4),
        (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1), (112, 4), (116, 4), (120, 8), (128, 8),
        (136, 8),
    ]
    /// The starts and lengths of a snapshot table entry's fields.
    private static let entryFields: [(offset: Int, byteCount: Int)] = [
        (0, 8), (8, 4), (12, 2), (14, 2), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 8),
        (64, 8),
    ]

    /// A mutator of a valid, small image.
    public init(base: [UInt8]) {
        self.base = base
        clusterBits = Int(base[23])
        let clusterSize = 1 << clusterBits
        func number(_ offset: Int, _ byteCount: Int) -> Int { Self.number(base, offset, byteCount) }
        var l1Tables = [Region(offset: number(40, 8), byteCount: max(8, number(36, 4) * 8), unit: 8)]
        var entries: [Region] = []
        var position = number(64, 8)
        for _ in 0..<number(60, 4) {
            position = (position + 7) & ~7
            entries.append(Region(offset: position, byteCount: 72, unit: 0))
            l1Tables.append(
                Region(offset: number(position, 8), byteCount: max(8, number(position + 8, 4) * 8), unit: 8))
            position += 40 + number(position + 36, 4) + number(position + 12, 2) + number(position + 14, 2)
        }
        var l2Tables: [Region] = []
        for table in l1Tables {
            for entry in stride(from: table.offset, to: table.offset + table.byteCount, by: 8) {
                let offset = number(entry, 8) & 0x00FF_FFFF_FFFF_FE00
                // The part that small disks use is damaged more often than the rest.
                if offset != 0 { l2Tables.append(Region(offset: offset, byteCount: min(clusterSize, 512), unit: 8)) }
            }
        }
        let refcountTable = number(48, 8)
        let block = number(refcountTable, 8)
        let width = max(1, (base[7] == 2 ? 16 : 1 << number(96, 4)) / 8)
        var all = [Region(offset: 0, byteCount: 144, unit: 0)] + entries + l1Tables + l2Tables
        all.append(Region(offset: refcountTable, byteCount: 16, unit: 8))
        all.append(
            Region(offset: block, byteCount: min(clusterSize, (base.count >> clusterBits + 8) * width), unit: width))
        all.append(Region(offset: 0, byteCount: base.count / 8 * 8, unit: 8))
        if number(112, 4) == 0x2385_2875 {
            all.append(Region(offset: number(136, 8), byteCount: 32, unit: 4))
            all.append(Region(offset: number(number(136, 8), 8), byteCount: 8, unit: 8))
        }
        regions = all.filter { $0.offset + $0.byteCount <= base.count || $0.byteCount <= 144 }
    }

    /// Makes one change that `choice` describes, whatever it is.
    public func mutate(_ bytes: inout [UInt8], _ choice: UInt64) {
        let region = regions[Int(choice >> 56) % regions.count]
        let place = Int(choice >> 40 & 0xFFFF)
        let argument = choice & 0xFFFF_FFFF
        var (offset, byteCount) = (0, 0)
        switch region.unit {
        case 0:
            let fields = region.offset == 0 ? Self.headerFields : Self.entryFields
            (offset, byteCount) = fields[place % fields.count]
            offset += region.offset
        case let unit:
            byteCount = unit
            offset = region.offset + place % max(1, region.byteCount / unit) * unit
        }
        guard offset + byteCount <= bytes.count else { return }
        let old = Self.raw(bytes, offset, byteCount)
        let new = value(choice >> 32 & 0xFF, old, argument, bytes.count)
        for index in 0..<byteCount {
            bytes[offset + index] = UInt8(truncatingIfNeeded: new >> UInt64((byteCount - 1 - index) * 8))
        }
    }

    private func value(_ kind: UInt64, _ old: UInt64, _ argument: UInt64, _ fileByteCount: Int) -> UInt64 {
        let clusterCount = UInt64(fileByteCount >> clusterBits) + 2
        let cluster = (argument % clusterCount) << UInt64(clusterBits)
        switch kind % 16 {
        case 0: return 0
        case 1: return argument
        case 2: return .max
        case 3: return cluster
        case 4, 5: return cluster | 1 << 63
        case 6, 7, 8: return old ^ 1 << (argument & 63)
        case 9: return old &+ 1
        case 10: return old &- 1
        case 11: return 1 << (argument & 63)
        case 12: return 1 << 62 | (argument % UInt64(fileByteCount + 600))
        case 13: return old &+ 512
        case 14: return argument & 0xFF
        default: return (old & ~0xFFFF) | (argument & 0xFFFF)
        }
    }

    private static func raw(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int) -> UInt64 {
        (offset..<(offset + byteCount)).reduce(0) { $0 << 8 | UInt64($1 < bytes.count ? bytes[$1] : 0) }
    }

    /// A number of a valid image, which fits.
    private static func number(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int) -> Int {
        Int(truncatingIfNeeded: raw(bytes, offset, byteCount) & (1 << 62 - 1))
    }
}
