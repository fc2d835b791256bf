// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// LUKS images whose encryption header extension lies about the length of the key material.
@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img")) struct EncryptionTests {
    @Test("Key material is never freed because a length is damaged", arguments: [65536, 512])
    func damagedLength(_ clusterSize: Int) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("luks.qcow2")
        let creation = try Tool.run(
            "qemu-img",
            [
                "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=\(clusterSize)", path, "4M",
            ])
        // On a busy machine qemu-img may find no time to measure the derivation of keys.
        guard creation.status == 0 else { return }
        let sound = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let record = try #require(Self.lengthOffset(in: sound))
        #expect(try Image.open(path, for: .reading).check().isClean)
        for length in [0, 4096, 65536, 1 << 40] as [UInt64] {
            var damaged = sound
            for index in 0..<8 { damaged[record + index] = UInt8(truncatingIfNeeded: length >> UInt64(56 - 8 * index)) }
            try Data(damaged).write(to: URL(fileURLWithPath: path))
            let error = #expect(throws: QCOW2Error.self) { _ = try Image.open(path, for: .reading) }
            #expect(error?.code == .corrupt, "length \(length)")
            var suspect = try SuspectImage.open(path, for: .writing)
            let report = try suspect.check()
            #expect(!report.isClean && report.count(of: .leak) == 0, "length \(length)")
            _ = try? suspect.repair(.leaks)
            _ = try? suspect.repair(.all)
            _ = suspect.close()
            let after = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            // The key material is where it was, byte for byte.
            let region = Int(Self.number(sound, record - 8))
            #expect(after[region..<(region + 0x1F9000)] == sound[region..<(region + 0x1F9000)], "length \(length)")
        }
    }

    /// Where the length in the encryption header extension is.
    private static func lengthOffset(in bytes: [UInt8]) -> Int? {
        var position = Int(number(bytes, 96) & 0xFFFF_FFFF)
        while number(bytes, position) >> 32 != 0 {
            if number(bytes, position) >> 32 == 0x0537_BE77 { return position + 16 }
            position += 8 + (Int(number(bytes, position) & 0xFFFF_FFFF) + 7) / 8 * 8
        }
        return nil
    }

    private static func number(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) }
    }
}
