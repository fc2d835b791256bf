// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import TestTools
import Testing

/// The worst files that are known, each with what must hold of it.
///
/// Processor time, not time: other tests run beside these. The limits are for debug builds.
@Suite(.enabled(if: LimitedCommand.isPossible, "needs GNU time and coreutils"))
struct WorstFileTests {
    /// Runs checks whose class may be known to be broken.
    private func holding(_ kind: AttackClass, _ body: () throws -> Void) {
        guard knownBroken.contains(kind) else {
            do { try body() } catch { Issue.record(error) }
            return
        }
        withKnownIssue("known to be broken: \(kind.rawValue)", isIntermittent: true) { try body() }
    }

    /// Expects an exit status, or any that says failure.
    private func expect(_ image: SparseImage, _ words: [String], status: Int32?) throws {
        let result = try image.run(words)
        let isRight = if let status { result.status == status } else { (result.status ?? 0) != 0 }
        #expect(isRight, "\(words[0]): status \(result.status ?? -1), signal \(result.signal ?? 0)")
    }

    /// Expects that commands end soon, in so much memory: 96 MiB, what of the file's tables must be held, and room for
    /// what the runtime takes.
    private func expectQuick(
        _ image: SparseImage, _ verbs: [[String]], seconds: Double = 3, mebibytes: Int = 160
    ) {
        for words in verbs {
            TestTally.add(1, to: "commands", of: "worst files")
            let space = LimitedCommand.baseAddressSpace + mebibytes << 20
            guard let result = try? image.run(words, seconds: Int(seconds) + 1, addressSpace: space) else {
                Issue.record("\(words) can't be run")
                continue
            }
            let isOutOfMemory = [SIGABRT, SIGTRAP, SIGILL, SIGSEGV].contains(result.signal ?? 0)
            holding(.time) {
                #expect(result.status != nil || isOutOfMemory, "\(words): no end after \(result.seconds) s")
                #expect(result.seconds <= seconds, "\(words): \(result.seconds) s")
            }
            holding(.memory) {
                #expect(!isOutOfMemory, "\(words): signal \(result.signal ?? 0), out of memory")
                #expect(result.peakByteCount <= mebibytes << 20, "\(words): \(result.peakByteCount >> 20) MiB")
            }
        }
    }

    private static let writers = [["create", "IMAGE", "new"], ["rename", "IMAGE", "first", "renamed"]]
    private static let readers = [["list", "IMAGE"], ["check", "IMAGE"], ["usage", "IMAGE"], ["inspect", "IMAGE"]]

    @Test("A refcount table of 8 MiB in a hole that describes 2^44 clusters", arguments: [16, 21])
    func refcountTable(_ clusterBits: Int) throws {
        for words in [["create", "IMAGE", "new"], ["usage", "IMAGE"], ["check", "IMAGE"]] {
            // A block of 2 MiB has 16,777,216 refcounts of one bit, which a debug build takes its time to write anew.
            expectQuick(
                try WorstFiles.refcountTableInHole(clusterBits: clusterBits), [words],
                seconds: clusterBits > 16 ? 20 : 3)
        }
    }

    @Test("A sparse file of 15 TiB")
    func sparse() throws {
        for words in Self.writers + Self.readers {
            guard let image = try? WorstFiles.grown("v3-4k.qcow2", to: 15 << 40) else { return }
            expectQuick(image, [words])
        }
    }

    @Test("400 snapshots with L1 tables of 32 MiB in holes")
    func l1Tables() throws {
        for words in [["create", "IMAGE", "new"], ["delete", "IMAGE", "id:7"]] + Self.readers {
            expectQuick(try WorstFiles.l1TablesInHoles(), [words])
        }
    }

    @Test("Snapshots that name one L1 table of 32 MiB: hashing all of them holds one")
    func sharedL1() throws {
        expectQuick(try WorstFiles.sharedL1(snapshotCount: 1000), [["hash", "--all", "IMAGE"], ["list", "IMAGE"]])
    }

    @Test("Time grows with the number of snapshots, not with its square", arguments: ["create", "usage", "check"])
    func descendingTables(_ verb: String) throws {
        holding(.time) {
            let words = [verb, "IMAGE"] + (verb == "create" ? ["new"] : [])
            let few = try WorstFiles.descendingTables(snapshotCount: 4000).run(words, seconds: 30)
            let many = try WorstFiles.descendingTables(snapshotCount: 32000).run(words, seconds: 30)
            #expect(few.status == many.status && few.status == 0, "\(few.errors) \(many.errors)")
            #expect(many.seconds < 20 * max(0.03, few.seconds), "\(verb): \(few.seconds) s, then \(many.seconds) s")
        }
    }

    @Test("A damaged length of the encryption header frees no key material", arguments: [0, 4096, 65536])
    func luksLength(_ length: Int) throws {
        guard Tool.isInstalled("qemu-img") else { return }
        var bytes = try LUKSImage.bytes()
        let fields = ImageFields(of: bytes).all
        let field = try #require(fields.first { $0.name == "extension length" })
        let start = try #require(fields.first { $0.structure == .luks && $0.name == "magic" }).offset
        bytes.replaceSubrange(field.offset..<(field.offset + 8), with: SparseImage.bytes(length, 8))
        let image = try SparseImage(bytes)
        holding(.luksLength) {
            try expect(image, ["check", "IMAGE"], status: 2)
            _ = try image.run(["check", "IMAGE", "--repair", "leaks"])
            let after = try image.bytes
            // Header, and the first slot's key material behind it.
            let region = start..<(start + 256 << 10)
            #expect(after.count >= region.upperBound && after[region] == bytes[region])
        }
    }

    @Test("A snapshot whose L1 table is too small for its disk is corrupt, and nothing of it is freed")
    func snapshotL1Size() throws {
        var bytes = try Fixtures.bytes("v3-512.qcow2")
        let field = try #require(ImageFields(of: bytes).all.first { $0.name == "0.l1_size" })
        bytes.replaceSubrange(field.offset..<(field.offset + 4), with: [0, 0, 0, 0])
        let image = try SparseImage(bytes)
        holding(.snapshotTable) {
            try expect(image, ["check", "IMAGE"], status: 2)
            try expect(image, ["hash", "--all", "IMAGE"], status: nil)
            try expect(image, ["apply", "IMAGE", "id:1"], status: nil)
            _ = try image.run(["check", "IMAGE", "--repair", "leaks"])
            let after = try image.bytes
            #expect(after == bytes)
        }
    }

    @Test("A snapshot's disk of 128 TiB over one L1 entry is corrupt, and can't be applied")
    func snapshotDiskSize() throws {
        var bytes = try Fixtures.bytes("v3-512.qcow2")
        let field = try #require(ImageFields(of: bytes).all.first { $0.name == "0.disk_size" })
        bytes.replaceSubrange(field.offset..<(field.offset + 8), with: SparseImage.bytes(128 << 40, 8))
        let image = try SparseImage(bytes)
        holding(.snapshotTable) {
            try expect(image, ["check", "IMAGE"], status: 2)
            try expect(image, ["export", "IMAGE", "id:1", image.folder.file("out")], status: nil)
            try expect(image, ["apply", "IMAGE", "id:1"], status: nil)
            try expect(image, ["hash", "IMAGE", "id:1"], status: nil)
            let after = try image.bytes
            #expect(after == bytes)
        }
    }

    @Test("A leaked reference of an L2 table stays a leak", arguments: ["v3-512.qcow2", "v3-4k.qcow2", "demo.qcow2"])
    func leakedTable(_ name: String) throws {
        guard Tool.isInstalled("qemu-img") else { return }
        let base = try Fixtures.bytes(name)
        let fields = ImageFields(of: base)
        for l1 in fields.all where l1.structure == .l1 {
            let table = fields.number(l1.offset, 8) & 0x00FF_FFFF_FFFF_FE00
            guard table != 0 else { continue }
            let block = fields.number(fields.number(48, 8), 8)
            var bytes = base
            bytes[block + 2 * (table / fields.clusterSize) + 1] += 1
            for verb in [AttackVerb.delete, .deleteAll, .create, .apply, .applyAndSave, .rename] {
                let image = try SparseImage(bytes)
                let before = try Verdict(of: image.path, in: image.folder)
                let list = try image.run(["list", "--json", "IMAGE"]).json?["images"] as? [[String: Any]]
                let snapshot = (list?.first?["snapshots"] as? [[String: Any]])?.first
                let words = verb.words(image.path, snapshot: snapshot?["id"] as? String, snapshot?["name"] as? String)
                holding(.newFindingsForQEMU) {
                    let result = try image.run(words ?? [])
                    #expect(result.status == 0)
                    let after = try Verdict(of: image.path, in: image.folder)
                    let breaches = before.breaches(after: after, verb).filter { !$0.1.contains("leak") }
                    #expect(breaches.isEmpty, "\(name), \(l1.name), \(verb): \(breaches)")
                }
            }
        }
    }

    @Test("Leaks in which a snapshot could be found again aren't freed")
    func remnants() throws {
        var bytes = try Fixtures.bytes("demo.qcow2")
        bytes[63] = 1
        let image = try SparseImage(bytes)
        holding(.remnants) {
            try expect(image, ["check", "IMAGE", "--repair", "leaks"], status: 3)
            let after = try image.bytes
            #expect(after == bytes)
        }
    }

    @Test("Bitmaps whose tables name two million clusters")
    func bitmapTables() throws {
        for words in [["create", "IMAGE", "new"]] + Self.readers {
            expectQuick(try WorstFiles.bitmapTables(count: 2), [words], seconds: 20)
        }
    }

    @Test("A snapshot table of 63 MiB")
    func longNames() throws {
        // Debug builds take 20 s for what takes 3 otherwise, so the others have their turn where there is time.
        let isLong = ProcessInfo.processInfo.environment["QCOW2_ATTACKS"] != nil
        let image = try WorstFiles.longNames()
        let verbs =
            [["rename", "IMAGE", "id:8", "renamed"]] + (isLong ? [["create", "IMAGE", "new"]] + Self.readers : [])
        expectQuick(image, verbs, seconds: 120, mebibytes: 96 + 63 + 32)
    }

    @Test("65,536 snapshots that name one L1 table of 32 MiB")
    func manySharedL1() throws {
        expectQuick(
            try WorstFiles.sharedL1(snapshotCount: 65_536), [["list", "IMAGE"], ["create", "IMAGE", "new"]], seconds: 30
        )
    }

    @Test("A sparse file of 8 EiB", .enabled(if: access("/dev/shm", W_OK) == 0, "needs a tmpfs"))
    func largest() throws {
        for words in Self.writers + Self.readers + [["hash", "IMAGE"], ["map", "IMAGE"]] {
            let image = try SparseImage(Fixtures.bytes("v3-4k.qcow2"), byteCount: .max, in: "/dev/shm")
            expectQuick(image, [words])
        }
    }

    /// How much processor time a command takes that gets a signal after some time.
    private func expectEnd(_ image: SparseImage, _ words: [String], _ signal: String, after seconds: Double) throws {
        // The end by force comes late, as others may have the processor meanwhile; only processor time is judged.
        let all = ["-s", signal, "-k", "60", "\(seconds)", LimitedCommand.qsnap] + words
        let result = try LimitedCommand("timeout", all, .init(seconds: 30), in: image.folder)
        #expect(result.signal != SIGKILL, "\(words) was deaf to SIG\(signal)")
        // Until the signal, on two processors, and half a second from there on.
        #expect(result.seconds <= 2 * seconds + 0.5, "\(words): \(result.seconds) s")
    }

    @Test("A signal ends a command on any file", arguments: ["create", "check", "usage", "list", "inspect"])
    func signals(_ verb: String) throws {
        for image in [try WorstFiles.refcountTableInHole(), try WorstFiles.l1TablesInHoles()] {
            holding(.deafToSignals) {
                try expectEnd(image, [verb, image.path] + (verb == "create" ? ["new"] : []), "TERM", after: 0.3)
            }
        }
    }

    /// 256 GiB, whose L2 tables are all there.
    private static let large = Result { () throws -> SparseImage in
        let image = try SparseImage([UInt8](repeating: 16, count: 24))
        try Tool.check(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image.path, "256G"])
        return image
    }

    @Test(
        "A signal ends a command at work within half a second of processor time",
        .enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"),
        arguments: ["create", "check", "check --repair all", "usage", "inspect", "map", "hash", "export"])
    func signalsAtWork(_ verb: String) throws {
        let image = try Self.large.get()
        for (signal, seconds) in [("TERM", 0.05), ("INT", 0.2), ("TERM", 0.5)] {
            let copy = try SparseImage([UInt8](repeating: 16, count: 24))
            try Tool.check("cp", ["--sparse=always", "--reflink=auto", image.path, copy.path])
            let words = verb.split(separator: " ").map(String.init)
            let more = ["create": ["new"], "export": ["-"]][verb] ?? []
            holding(.deafToSignals) {
                try expectEnd(copy, [words[0], copy.path] + words.dropFirst() + more, signal, after: seconds)
            }
        }
    }
}
