// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A number of an image's metadata.
struct ImageField: Sendable {
    let structure: Structure
    let name: String
    let offset: Int
    let byteCount: Int

    enum Structure: String, CaseIterable, Sendable {
        case header, headerExtension, snapshot, l1, l2, refcountTable, refcountBlock, bitmaps, luks
    }

    /// Whether the number says where something is.
    var isPointer: Bool { name.hasSuffix("offset") || [.l1, .l2, .refcountTable].contains(structure) }
}

/// Finds every field of a valid, small image; shares no code with the library.
struct ImageFields {
    private(set) var all: [ImageField] = []
    /// Where tables and data are: what pointers of the image point to.
    private(set) var targets: [UInt64] = [0]
    let clusterSize: Int
    private let bytes: [UInt8]
    private let isExtended: Bool

    init(of bytes: [UInt8]) {
        self.bytes = bytes
        clusterSize = 1 << Int(bytes[23])
        isExtended = bytes[7] == 3 && bytes[79] & 16 != 0
        addHeader()
        addExtensions()
        var tables = [("active", number(40, 8), number(36, 4))]
        var position = number(64, 8)
        for index in 0..<number(60, 4) {
            position = (position + 7) & ~7
            let layout = [
                ("l1_offset", 0, 8), ("l1_size", 8, 4), ("id_size", 12, 2), ("name_size", 14, 2), ("date", 16, 4),
                ("clock", 24, 8), ("vm_state_size", 32, 4), ("extra_size", 36, 4), ("vm_state_size_64", 40, 8),
                ("disk_size", 48, 8), ("icount", 56, 8), ("id", 64, 1), ("name", 65, 1),
            ]
            add(.snapshot, layout, at: position, prefix: "\(index).")
            tables.append(("\(index)", number(position, 8), number(position + 8, 4)))
            position += 40 + number(position + 36, 4) + number(position + 12, 2) + number(position + 14, 2)
        }
        for table in tables { addTree(table.0, table.1, table.2) }
        addRefcounts()
        targets.append(contentsOf: all.filter(\.isPointer).map { UInt64(number($0.offset, $0.byteCount)) & ~0x1FF })
        targets = Array(Set(targets.map { $0 & 0x00FF_FFFF_FFFF_FE00 })).sorted()
    }

    func number(_ offset: Int, _ byteCount: Int) -> Int {
        guard offset >= 0, offset + byteCount <= bytes.count else { return 0 }
        let raw = bytes[offset..<(offset + byteCount)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return Int(truncatingIfNeeded: raw & 0x7FFF_FFFF_FFFF_FFFF)
    }

    private mutating func add(
        _ structure: ImageField.Structure, _ layout: [(String, Int, Int)], at start: Int, prefix: String = ""
    ) {
        for (name, offset, byteCount) in layout where start + offset + byteCount <= bytes.count {
            all.append(
                ImageField(structure: structure, name: prefix + name, offset: start + offset, byteCount: byteCount))
        }
    }

    private mutating func addHeader() {
        let both = [
            ("magic", 0, 4), ("version", 4, 4), ("backing_file_offset", 8, 8), ("backing_file_size", 16, 4),
            ("cluster_bits", 20, 4), ("size", 24, 8), ("crypt_method", 32, 4), ("l1_size", 36, 4),
            ("l1_table_offset", 40, 8), ("refcount_table_offset", 48, 8), ("refcount_table_clusters", 56, 4),
            ("nb_snapshots", 60, 4), ("snapshots_offset", 64, 8),
        ]
        let third = [
            ("incompatible", 72, 8), ("compatible", 80, 8), ("autoclear", 88, 8), ("refcount_order", 96, 4),
            ("header_length", 100, 4), ("compression_type", 104, 1),
        ]
        add(.header, both + (bytes[7] == 3 ? third : []), at: 0)
    }

    private mutating func addExtensions() {
        var position = bytes[7] == 3 ? number(100, 4) : 72
        while position + 8 <= clusterSize {
            let (type, length) = (number(position, 4), number(position + 4, 4))
            add(.headerExtension, [("type", 0, 4), ("length", 4, 4)], at: position)
            switch type {
            case 0: return
            case 0x2385_2875: addBitmaps(at: position + 8)
            case 0x0537_BE77:
                add(.luks, [("extension offset", 0, 8), ("extension length", 8, 8)], at: position + 8)
                let start = number(position + 8, 8)
                add(.luks, [("magic", 0, 4), ("version", 6, 2), ("payload_offset", 104, 4)], at: start)
                add(.luks, [("key_bytes", 108, 4), ("active", 208, 4), ("key_offset", 248, 4)], at: start)
                add(.luks, [("stripes", 252, 4), ("active", 256, 4)], at: start)
            default: break
            }
            position += 8 + (length + 7) & ~7
        }
    }

    private mutating func addBitmaps(at start: Int) {
        add(
            .bitmaps,
            [("nb_bitmaps", 0, 4), ("reserved", 4, 4), ("directory size", 8, 8), ("directory offset", 16, 8)],
            at: start)
        var entry = number(start + 16, 8)
        for _ in 0..<number(start, 4) {
            let layout = [
                ("table offset", 0, 8), ("table_size", 8, 4), ("flags", 12, 4), ("type", 16, 1), ("granularity", 17, 1),
                ("name_size", 18, 2), ("extra_size", 20, 4), ("name", 24, 1),
            ]
            add(.bitmaps, layout, at: entry)
            add(.bitmaps, [("table entry offset", 0, 8)], at: number(entry, 8))
            entry += (24 + number(entry + 18, 2) + number(entry + 20, 4) + 7) & ~7
        }
    }

    private mutating func addTree(_ name: String, _ offset: Int, _ count: Int) {
        let width = isExtended ? 16 : 8
        for index in 0..<count {
            add(.l1, [("\(name)[\(index)]", 0, 8)], at: offset + 8 * index)
            let table = number(offset + 8 * index, 8) & 0x00FF_FFFF_FFFF_FE00
            guard table != 0 else { continue }
            let entries = (0..<(clusterSize / width)).filter { $0 < 2 || number(table + width * $0, width / 2) != 0 }
            for entry in entries.prefix(64) {
                add(.l2, [("\(name)[\(index)][\(entry)]", 0, 8)], at: table + width * entry)
                if isExtended { add(.l2, [("\(name)[\(index)][\(entry)] bitmap", 8, 8)], at: table + width * entry) }
            }
        }
    }

    private mutating func addRefcounts() {
        let bits = bytes[7] == 3 ? 1 << number(96, 4) : 16
        let clusters = bytes.count / clusterSize + 2
        for index in 0..<min(clusterSize / 8, clusters * bits / 8 / clusterSize + 3) {
            add(.refcountTable, [("[\(index)]", 0, 8)], at: number(48, 8) + 8 * index)
            let block = number(number(48, 8) + 8 * index, 8) & ~0x1FF
            guard block != 0 else { continue }
            let byteCount = max(1, bits / 8)
            for place in stride(from: 0, to: min(clusterSize, clusters * bits / 8 + 2), by: byteCount) {
                add(.refcountBlock, [("[\(index)]+\(place)", 0, byteCount)], at: block + place)
            }
        }
    }
}
