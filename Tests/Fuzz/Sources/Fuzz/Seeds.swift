// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Writes the inputs that a target starts from, cut from the golden images.
func writeSeeds(of target: FuzzTarget, into folder: String) {
    var seeds: [[UInt8]] = []
    for (index, (_, bytes)) in goldenImages.enumerated() {
        let clusterSize = 1 << Int(bytes[23])
        let snapshotTable = number(bytes, 64, 8)
        switch target {
        case .header: seeds.append(Array(bytes[..<min(clusterSize, 4096)]))
        case .l2:
            guard clusterSize <= 16384 else { continue }
            let table = number(bytes, number(bytes, 40, 8), 8) & 0xFFFF_FE00
            let choice: UInt8 = clusterSize == 16384 ? 1 : clusterSize == 4096 ? 6 : 0
            seeds.append([choice] + bytes[table..<(table + clusterSize)])
        case .snapshots: if snapshotTable > 0 { seeds.append(Array(bytes[snapshotTable...].prefix(512))) }
        case .bitmaps:
            // The record and the directory of the image with bitmaps.
            guard number(bytes, 112, 4) == 0x2385_2875 else { continue }
            let (start, count) = (number(bytes, 136, 8), number(bytes, 128, 8))
            seeds.append([0] + bytes[120..<144] + [1] + bytes[start..<(start + count)])
        case .codec:
            // A stored block, a compressed one, and a zstd frame.
            seeds.append([0, 1, 4, 0, 0xFB, 0xFF, 1, 2, 3, 4])
            seeds.append([0, 0x63, 0x60, 0x18, 0x05, 0xA3, 0x60, 0x14, 0x0C, 0x35, 0x00, 0x00])
            seeds.append([1, 0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x00, 0x01, 0x4D, 0x00, 0x00, 0x10, 0, 0, 1, 0, 0xFB, 0x39])
            if clusterSize == 4096 { seeds.append([7] + bytes[0x5000..<0x6000]) }
        case .image: if bytes.count <= 1 << 14 { seeds.append(bytes) }
        case .patched, .verbs, .guest, .repair:
            for operations in [[0, 2, 4, 5], [6, 0, 2, 0x85], [0x80, 0x0A, 0x8C, 0], [0x28, 0x55, 0x7B, 0x3F]]
                as [[UInt8]]
            {
                seeds.append([UInt8(index)] + operations)
                for region in UInt8(0)..<8 {
                    seeds.append([UInt8(index)] + operations + [region, 0, 3, 0, 0, 0, 0, 7])
                }
            }
        }
    }
    for (index, seed) in seeds.enumerated() {
        guard let file = fopen("\(folder)/seed-\(index)", "w") else { complain("can't write into \(folder)") }
        fwrite(seed, 1, seed.count, file)
        fclose(file)
    }
}

private func number(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int) -> Int {
    bytes[offset..<(offset + byteCount)].reduce(0) { ($0 << 8 | Int($1)) & (1 << 56 - 1) }
}
