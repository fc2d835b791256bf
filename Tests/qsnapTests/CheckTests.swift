// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

@Suite struct CheckCommandTests {
    private static let leak: @Sendable (inout [UInt8]) -> Void = { $0.store(UInt16(1), at: 0x400 + 40 * 2) }
    private static let corruption: @Sendable (inout [UInt8]) -> Void = { $0.store(UInt16(1), at: 0x400 + 5 * 2) }

    @Test("A clean image: status 0, one verdict, and how it is laid out")
    func clean() throws {
        let image = try TestImage()
        let before = try image.bytes
        let result = try image.run(["check"])
        #expect(result.status == 0 && result.errors.isEmpty)
        let lines = result.output.split(separator: "\n")
        #expect(lines.first == "'\(image.path)' is clean.")
        #expect(lines.contains("Checked the active state and 1 snapshot."))
        #expect(lines.contains("8/24 clusters = 33.33% allocated, 75.00% fragmented, 50.00% compressed."))
        #expect(lines.last == "Image end offset: 8704.")
        #expect(try image.bytes == before)
    }

    @Test("Findings are lines with severity, code and offset; the status says what is worst")
    func findings() throws {
        let leaking = try TestImage("v3-512") { Self.leak(&$0) }
        let result = try leaking.run(["check"])
        #expect(result.status == 3 && result.errors.isEmpty)
        #expect(result.output.hasPrefix("leak: refcount-too-high at 0x5000: Cluster 40 has the refcount 1, but 0 ref"))
        #expect(result.output.contains("is not clean: 1 leak."))
        #expect(try TestImage("v3-512") { Self.corruption(&$0) }.run(["check"]).status == 2)
    }

    @Test("JSON has the documented keys")
    func json() throws {
        let image = try TestImage("v3-512") { Self.corruption(&$0) }
        let result = try image.run(["check", "--json"])
        #expect(result.status == 2)
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
        #expect(
            Set(object.keys) == [
                "image", "findings", "counts", "codes", "complete", "total-clusters", "allocated-clusters",
                "fragmented-clusters", "compressed-clusters", "image-end-offset", "checked-snapshots",
                "decompressed-clusters", "moving-target",
            ])
        let findings = try #require(object["findings"] as? [[String: Any]])
        #expect(findings.map { $0["code"] as? String } == ["refcount-too-low", "copied-flag-l2"])
        #expect(
            Set(findings.flatMap(\.keys)) == [
                "code", "severity", "offset", "table", "index", "count", "message", "confidence", "confidence-reason",
            ])
        #expect(
            (object["counts"] as? [String: Int]) == [
                "critical": 0, "corruption": 2, "leak": 0, "notice": 0, "unsupported": 0,
            ])
        let repaired = try image.run(["check", "--json", "--repair", "all"])
        #expect(repaired.status == 0)
        let after = try #require(
            try JSONSerialization.jsonObject(with: Data(repaired.output.utf8)) as? [String: Any])
        #expect(after["repaired"] as? Bool == true)
        #expect((after["changes"] as? [String: Any])?["raised-refcounts"] as? Int == 1)
        #expect(after["remaining"] == nil)
    }

    @Test("A dry run says what would be repaired; the repair does it")
    func repair() throws {
        let image = try TestImage("v3-512") { Self.corruption(&$0) }
        let before = try image.bytes
        let dry = try image.run(["check", "--repair", "all", "--dry-run"])
        #expect(dry.status == 2 && dry.output.contains("Would repair: 1 refcounts raised"))
        #expect(try image.bytes == before)
        let content = try image.content()
        let result = try image.run(["check", "--repair", "all"])
        #expect(result.status == 0 && result.output.contains("Repaired: 1 refcounts raised"))
        #expect(result.output.contains("' is clean."))
        #expect(try image.content() == content)
        #expect(try image.run(["check", "--repair", "all"]).output.contains("Nothing to repair."))
    }

    @Test("What can't be repaired is named, and the status stays 2")
    func remaining() throws {
        let image = try TestImage("v3-512") { $0.store(UInt64(1) << 63 | 1 << 56 | 0x2000, at: 0x1E08) }
        let result = try image.run(["check", "--repair", "all"])
        #expect(result.status == 2 && result.output.contains("l2-entry-reserved-bits at 0x1e08"))
    }

    @Test("Snapshots that can't be read are kept, and dropped on request")
    func unreadable() throws {
        let image = try TestImage("v3-512") { $0.store(UInt64(0x10000), at: 0x1C00) }
        let before = try image.bytes
        for scope in ["all", "leaks", "all"] {
            let result = try image.run(["check", "--repair", scope])
            #expect(result.status == 2 && result.output.contains("Nothing to repair."))
            #expect(result.output.contains("1 unreadable entry of the snapshot table kept") == (scope == "all"))
        }
        #expect(try image.bytes == before)
        #expect(try image.run(["check", "--repair", "leaks", "--drop-unreadable-snapshots"]).status == 64)
        let words = ["check", "--repair", "all", "--drop-unreadable-snapshots"]
        let dry = try image.run(words + ["-n", "--json"])
        let object = try #require(try JSONSerialization.jsonObject(with: Data(dry.output.utf8)) as? [String: Any])
        #expect((object["changes"] as? [String: Any])?["dropped-snapshots"] as? Int == 1)
        let result = try image.run(words)
        #expect(result.status == 3 && result.output.contains("1 unreadable snapshots dropped"))
    }

    @Test("What is left of a snapshot stops a repair, which says how to go on")
    func remnants() throws {
        let image = try TestImage("v3-512") { $0.store(UInt32(0), at: 60) }
        let before = try image.bytes
        for words in [["leaks"], ["all"], ["leaks", "--dry-run"]] {
            let result = try image.run(["check", "--repair"] + words)
            #expect(result.status == 3 && result.errors.isEmpty)
            #expect(
                result.output.contains("\nremnant: The snapshot table entry of snapshot '1', named 'first', at 0x1c00"))
            #expect(result.output.contains("Nothing was repaired: leaked clusters hold data that no state has"))
            #expect(result.output.contains("'qsnap inspect'") && result.output.contains("--discard-remnants"))
        }
        let json = try image.run(["check", "--repair", "leaks", "--json"])
        let object = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
        let remnants = try #require(object["remnants"] as? [[String: Any]])
        #expect(json.status == 3 && object["repaired"] as? Bool == false && remnants.count >= 1)
        #expect(Set(remnants[0].keys) == ["kind", "offset", "data-clusters", "snapshot"])
        #expect(try image.bytes == before)
        #expect(try image.run(["check", "--discard-remnants"]).status == 64)
        let result = try image.run(["check", "--repair", "leaks", "--discard-remnants"])
        #expect(result.status == 0 && result.output.contains("refcounts lowered"))
        // As qemu-img does, without asking.
        let other = try TestImage("v3-512") { $0.store(UInt32(0), at: 60) }
        #expect(try Command.run(["qemu-img", "check", "-r", "leaks", other.path]).status == 0)
        #expect(try other.run(["check"]).status == 0)
    }

    @Test("What isn't an image, or can't be made out, fails with its own status")
    func refused() throws {
        let other = try TestImage("v3-512") { $0.store(UInt32(0), at: 0) }
        expectOneSentence(try other.run(["check"]), status: 7, naming: other.path, ["magic"])
        let unknown = try TestImage("v3-512") { $0.store(UInt64(1) << 40, at: 72) }
        expectOneSentence(try unknown.run(["check"]), status: 6, naming: unknown.path, ["bit 40"])
        let broken = try TestImage("v3-512") { $0.store(UInt32(63), at: 20) }
        expectOneSentence(try broken.run(["check"]), status: 1, naming: broken.path, ["cluster_bits"])
        let image = try TestImage()
        #expect(try image.run(["check", "--dry-run"]).status == 64)
        #expect(try image.run(["check", "-U", "--repair", "all"]).status == 64)
        #expect(try image.run(["check", "-U"]).output.contains("read without a lock"))
    }
}
