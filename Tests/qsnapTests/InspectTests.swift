// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import TestTools
import Testing

@Suite struct InspectTests {
    @Test("People get a summary, tables and findings")
    func summary() throws {
        let output = try TestImage("v3-512-backing").check("inspect")
        for line in [
            ": qcow2 version 3, 6.5 KiB file, 12 KiB disk, 512 B clusters, 16-bit refcounts\n",
            "\nBacking file: backing.raw (format: raw)\n",
            "\nClusters: 13, of them 13 in use, 0 leaked, 0 free, 0 of these with data\n",
            "\nactive L1 table  0x600   8      8\n", "\n0x1400  1   first  20",
            "\nnotice backing-file at 0x88: Data shows through from the backing file 'backing.raw'",
        ] {
            #expect(output.contains(line), "\(output)")
        }
        #expect(!output.contains("cluster_bits"))
    }

    @Test("A dump has a line for each field, with offset, bytes and value")
    func dump() throws {
        let output = try TestImage().check("inspect", "--dump")
        for line in [
            "\n0x0 header\n  0x0  514649fb  magic = 1363560955\n", "\n  0x14  00000009  cluster_bits = 9\n",
            "\n  0x600  8000000000001e00  entry 0 = ", "\n0x1c00 snapshot table entry 0\n",
            "\n  0x1c41  6669727374  name = 'first'\n",
        ] {
            #expect(output.contains(line), "\(output)")
        }
    }

    @Test("JSON has the documented keys")
    func json() throws {
        let image = try TestImage("v3-512-backing")
        let object = try image.json("inspect")
        #expect(
            Set(object.keys) == [
                "image", "file-size", "magic", "opening-error", "version", "virtual-size", "cluster-size",
                "refcount-bits", "encryption-method", "compression-type", "features", "extensions", "backing-file",
                "tables", "clusters", "snapshots", "deleted-snapshots", "nested-snapshots", "old-l1-tables", "findings",
                "findings-omitted", "dump", "dump-cut",
            ])
        #expect(object["image"] as? String == image.path && object["magic"] as? Bool == true)
        #expect(object["opening-error"] is NSNull && object["cluster-size"] as? Int == 512)
        let backing = try #require(object["backing-file"] as? [String: Any])
        #expect(backing["name"] as? String == "backing.raw" && backing["format"] as? String == "raw")
        let snapshots = try #require(object["snapshots"] as? [[String: Any]])
        #expect(snapshots.first?["offset"] as? Int == 0x1400 && snapshots.count == 1)
        #expect((snapshots.first?["snapshot"] as? [String: Any])?["name"] as? String == "first")
        let findings = try #require(object["findings"] as? [[String: Any]])
        #expect(findings.map { $0["code"] as? String } == ["backing-file", "internal-snapshots"])
        #expect(
            Set(findings[0].keys) == [
                "code", "severity", "offset", "table", "index", "count", "message", "confidence", "confidence-reason",
            ])
        let dump = try #require(object["dump"] as? [[String: Any]])
        let fields = try #require(dump.first?["fields"] as? [[String: Any]])
        #expect(fields.first?["bytes"] as? String == "514649fb" && fields.first?["offset"] as? Int == 0)
    }

    @Test("What every other verb refuses is shown", arguments: RefusedImageTests.damages)
    func refused(_ damage: RefusedImageTests.Damage) throws {
        let image = try TestImage("v3-512", damage.change)
        let result = try image.run(["inspect", "--dump"])
        let hasMagic = try image.bytes.starts(with: [0x51, 0x46, 0x49, 0xFB])
        #expect(result.status == (hasMagic ? 0 : 7) && !result.wasKilled)
        #expect(result.errors.isEmpty == hasMagic)
        #expect(result.output.contains(damage.words) || damage.isListed, "\(result.output)")
        let json = try image.run(["inspect", "--json"])
        #expect(json.status == result.status)
        #expect(try jsonObject(json.output)["magic"] as? Bool == hasMagic)
    }

    @Test("Names that no terminal should get are escaped")
    func oddNames() throws {
        let image = try TestImage { try $0.replace("first", with: Array("\u{1B}[2J\n".utf8), from: $0.snapshotTable) }
        let output = try image.check("inspect", "--dump")
        #expect(!output.contains("\u{1B}") && output.contains("\\u{1b}[2J\\u{a}"))
    }

    @Test("Neither the content nor the times of change are touched", arguments: [["inspect"], ["inspect", "-U"]])
    func untouched(_ words: [String]) throws {
        let image = try TestImage()
        let before = try (image.bytes, times(image.path))
        #expect(try image.run(words).status == 0)
        #expect(try image.bytes == before.0 && times(image.path) == before.1)
        // Not even of a file that nobody may write.
        chmod(image.path, 0o400)
        #expect(try image.run(words).status == 0)
    }

    private func times(_ path: String) throws -> [Int] {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return [
            status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec, status.st_ctim.tv_nsec,
            Int(status.st_size),
        ]
    }

    @Test("No file that the image names is opened", .enabled(if: Tool.isInstalled("strace"), "needs strace"))
    func opensOneFile() throws {
        let image = try TestImage { bytes in
            bytes.store(UInt64(128), at: 8)
            bytes.store(UInt32(11), at: 16)
            bytes.replaceSubrange(128..<139, with: "/etc/passwd".utf8)
        }
        let trace = image.folder.file("trace")
        let result = try Command.run(
            ["inspect", image.path], via: "exec strace -f -e trace=open,openat,openat2 -o \(trace) \"$@\"")
        #expect(result.status == 0)
        let opened = try String(contentsOfFile: trace, encoding: .utf8)
        #expect(opened.contains(image.path) && !opened.contains("/etc/passwd"))
        let ours = opened.split(separator: "\n").filter { $0.contains(image.path) }
        #expect(ours.count == 1 && ours[0].contains("O_RDONLY"), "\(ours)")
    }

    @Test("The search can be limited")
    func search() throws {
        let image = try TestImage { $0 += Array(repeating: 1, count: 2 << 20) }
        #expect(try !image.check("inspect").contains("search-cut"))
        #expect(try image.check("inspect", "--search", "1").contains("search-cut at 0x"))
        #expect(try image.run(["inspect", "--search", "-1"]).status == 64)
    }

    @Test("What can't be read fails in one sentence")
    func missing() throws {
        let folder = try TemporaryFolder()
        let result = try Command.run(["inspect", folder.file("none")])
        expectOneSentence(result, status: 1, naming: folder.file("none"), ["No such file"])
    }
}
