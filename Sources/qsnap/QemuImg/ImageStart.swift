// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The first bytes of a file: what format it is, and what is wrong with its header in QEMU's words.
///
/// The library refuses such headers in its own words; scripts may know QEMU's.
struct ImageStart {
    private let bytes: [UInt8]

    /// Reads the first 4 KiB.
    init(reading storage: borrowing FileStorage) throws(QCOW2Error) {
        let byteCount = Int(min(4096, try storage.byteCount()))
        var bytes = [UInt8](repeating: 0, count: 4096)
        var span = bytes.mutableSpan
        try storage.read(into: &span, at: HostOffset(0))
        self.bytes = Array(bytes.prefix(byteCount))
    }

    private func number(_ offset: Int, _ byteCount: Int) -> UInt64 {
        guard offset + byteCount <= bytes.count else { return 0 }
        return bytes[offset..<(offset + byteCount)].reduce(0) { $0 << 8 | UInt64($1) }
    }

    private func starts(with text: String) -> Bool { bytes.starts(with: text.utf8) }

    /// The format that QEMU would find, among those that can be told by their first bytes.
    var format: String {
        if number(0, 4) == 0x5146_49FB, bytes.count >= 8 {
            return number(4, 4) >= 2 ? "qcow2" : number(4, 4) == 1 ? "qcow" : "raw"
        }
        if starts(with: "LUKS\u{BA}\u{BE}") || bytes.starts(with: [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]) {
            return "luks"
        }
        if starts(with: "KDMV") || starts(with: "COWD") || starts(with: "# Disk DescriptorFile") { return "vmdk" }
        if starts(with: "vhdxfile") { return "vhdx" }
        if starts(with: "conectix") { return "vpc" }
        if starts(with: "QED\0") { return "qed" }
        if starts(with: "WithoutFreeSpace") || starts(with: "WithouFreSpacExt") { return "parallels" }
        if number(64, 4) == 0x7F10_DABE { return "vdi" }
        return "raw"
    }

    /// What is wrong with the version, if the magic number is right.
    var versionComplaint: String? {
        guard number(0, 4) == 0x5146_49FB, bytes.count >= 8 else { return nil }
        let version = number(4, 4)
        return version == 2 || version == 3 ? nil : "Unsupported qcow2 version \(version)"
    }

    /// What is wrong with the header, if QEMU would see it too.
    var complaint: String? {
        if let versionComplaint { return versionComplaint }
        let isVersion3 = number(4, 4) == 3
        let clusterBits = number(20, 4)
        guard (9...21).contains(clusterBits) else { return "Unsupported cluster size: 2^\(clusterBits)" }
        let clusterSize = UInt64(1) << clusterBits
        let headerByteCount = isVersion3 ? number(100, 4) : 72
        if headerByteCount < (isVersion3 ? 104 : 72) { return "qcow2 header too short" }
        if headerByteCount > clusterSize { return "qcow2 header exceeds cluster size" }
        if number(8, 8) > clusterSize { return "Invalid backing file offset" }
        return featureComplaint(isVersion3, headerByteCount, clusterBits) ?? tableComplaint(clusterBits)
    }

    private func featureComplaint(_ isVersion3: Bool, _ headerByteCount: UInt64, _ clusterBits: UInt64) -> String? {
        let features = isVersion3 ? number(72, 8) : 0
        let unknown = features & ~0x1F
        if unknown != 0 {
            return "Unsupported qcow2 feature(s): \(unknownFeatures(unknown, headerByteCount))"
        }
        let compression = headerByteCount > 104 ? number(104, 1) : 0
        if compression > 1 { return "qcow2: unknown compression type: \(compression)" }
        if features & 8 != 0, compression == 0 {
            return "qcow2: Compression type incompatible feature bit must not be set"
        }
        if features & 8 == 0, compression != 0 { return "qcow2: Compression type incompatible feature bit must be set" }
        if features & 16 != 0, clusterBits < 14 {
            return "Unsupported subcluster size: \((UInt64(1) << clusterBits) / 32)"
        }
        if isVersion3, number(96, 4) > 6 {
            return "Reference count entry width too large; may not exceed 64 bits"
        }
        let method = number(32, 4)
        if method > 2 { return "Unsupported encryption method \(method)" }
        return nil
    }

    /// Names of feature bits that the image knows, then the others as a mask.
    private func unknownFeatures(_ mask: UInt64, _ headerByteCount: UInt64) -> String {
        var names: [String] = []
        var rest = mask
        var position = Int(headerByteCount)
        while number(position, 4) != 0, number(position, 4) != 0x6803_F857 {
            position += 8 + Int(number(position + 4, 4) + 7) / 8 * 8
        }
        if number(position, 4) == 0x6803_F857 {
            let end = min(position + 8 + Int(number(position + 4, 4)), bytes.count)
            for entry in stride(from: position + 8, through: end - 48, by: 48)
            where bytes[entry] == 0 && bytes[entry + 1] < 64 && rest >> UInt64(bytes[entry + 1]) & 1 == 1 {
                names.append(String(decoding: bytes[(entry + 2)..<(entry + 48)].prefix { $0 != 0 }, as: UTF8.self))
                rest &= ~(1 << UInt64(bytes[entry + 1]))
            }
        }
        if rest != 0 { names.append("Unknown incompatible feature: \(String(rest, radix: 16))") }
        return names.joined(separator: ", ")
    }

    private func tableComplaint(_ clusterBits: UInt64) -> String? {
        let clusterMask = UInt64(1) << clusterBits - 1
        func isInvalid(_ offset: UInt64) -> Bool { offset & clusterMask != 0 || offset >= 1 << 63 }
        let tableClusters = number(56, 4)
        if tableClusters == 0 { return "Image does not contain a reference count table" }
        if tableClusters << clusterBits > 8 << 20 { return "Reference count table too large" }
        if isInvalid(number(48, 8)) { return "Reference count table offset invalid" }
        if number(60, 4) > 65536 { return "Snapshot table too large" }
        if isInvalid(number(64, 8)) { return "Snapshot table offset invalid" }
        if number(36, 4) > 4 << 20 { return "Active L1 table too large" }
        if isInvalid(number(40, 8)) { return "Active L1 table offset invalid" }
        let entryByteCount: UInt64 = number(72, 8) & 16 != 0 && number(4, 4) == 3 ? 16 : 8
        let bytesPerL1Entry = ((UInt64(1) << clusterBits) / entryByteCount) << clusterBits
        let needed = number(24, 8) / bytesPerL1Entry + (number(24, 8) % bytesPerL1Entry == 0 ? 0 : 1)
        if needed > 1 << 31 - 1 { return "Image is too big" }
        if needed > number(36, 4) { return "L1 table is too small" }
        if number(32, 4) == 2 { return "Missing CRYPTO header for crypt method 2" }
        return nil
    }
}
