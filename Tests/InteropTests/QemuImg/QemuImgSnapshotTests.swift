// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// How much the comparisons with qemu-img do: `QCOW2_QEMU_IMG_LINES=N` multiplies the number of random command lines.
let lineFactor = Int(ProcessInfo.processInfo.environment["QCOW2_QEMU_IMG_LINES"] ?? "") ?? 1

extension Comparison {
    /// Copies a golden image, or any bytes, into the master folder.
    func add(_ name: String, _ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: master.file(name)))
    }

    func addGolden(_ name: String) throws { try add("\(name).qcow2", Fixtures.bytes("\(name).qcow2")) }

    /// Runs a real tool in the master folder.
    func prepare(_ tool: String, _ words: String...) throws { try prepare(tool, words) }

    /// Runs a real tool in the master folder.
    func prepare(_ tool: String, _ words: [String]) throws {
        let script = "cd '\(master.path)' && exec \(tool) \"$@\""
        try Tool.check("bash", ["-c", script, "bash"] + words)
    }
}

/// The golden images that the tools of this machine may write.
let goldenImages = [
    "v2-512", "v3-16k-extended", "v3-4k-zstd", "v3-4k", "v3-512", "v3-512-refcount2", "v3-512-refcount32",
    "v3-512-refcount4",
    "v3-512-refcount64", "v3-512-refcount8", "v3-512-bitmaps", "v3-512-refcount1",
]

@Suite(.enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"))
struct QemuImgSnapshotTests {
    @Test(
        "Random lines do and say what qemu-img does and says, and leave the same images",
        arguments: goldenImages.flatMap { name in (0..<UInt64(2 * lineFactor)).map { (name, $0) } })
    func sequence(_ golden: String, _ seed: UInt64) throws {
        let comparison = try Comparison()
        try comparison.addGolden(golden)
        var generator = LineGenerator(seed: seed &* 31 &+ UInt64(golden.utf8.count))
        try comparison.run((0..<50).map { _ in generator.snapshot("\(golden).qcow2") }, then: .sameImages)
    }

    @Test("Lists are equal to the byte: dates, zones, sizes, clocks, names, IDs")
    func lists() throws {
        let comparison = try Comparison()
        for name in goldenImages + ["demo"] { try comparison.addGolden(name) }
        try comparison.add("odd.qcow2", oddSnapshots())
        var lines: [Invocation] = []
        for name in goldenImages + ["demo", "odd"] {
            for zone in ["UTC", "America/New_York", "Asia/Kathmandu", "Europe/Berlin", "Nowhere/Land", "XYZ-3:30"] {
                lines.append(Invocation("snapshot", "-l", "\(name).qcow2", environment: ["TZ": zone]))
            }
        }
        try comparison.run(lines, then: .untouched)
    }

    /// An image whose snapshots' fields hold extreme values.
    private func oddSnapshots() throws -> [UInt8] {
        var image = try Image(storage: InMemoryStorage(Fixtures.bytes("v3-512.qcow2")))
        let names = LineGenerator.names
        for (index, name) in names.enumerated() {
            let icounts: [UInt64?] = [nil, 0, 1, 9_223_372_036_854_775_807, 1 << 63, .max - 1, 12345]
            let seconds: [UInt32] = [0, 1, 1_700_000_000, 1_711_846_799, 1_711_846_800, .max, 1 << 31]
            try image.createSnapshot(
                NewSnapshot(
                    nameBytes: name,
                    date: SnapshotDate(seconds: seconds[index % seconds.count], nanoseconds: UInt32(index) << 27),
                    icount: icounts[index % icounts.count], namePolicy: .anyBytes))
        }
        var bytes = image.close().bytes
        // VM clocks and state sizes, in place: 8 bytes each at 24 and 40 of an entry, whose length is its own business.
        let sizes: [UInt64] = [
            0, 1, 999, 1000, 1023, 1024, 10234, 10235, 10751, 102400, 1_023_487, 1_023_488, 1_023_999, 1_024_000,
            1_047_552, 1 << 20, 1 << 63, .max, 999 << 30, 1000 << 30, 123_456_789,
        ]
        let clocks: [UInt64] = [0, 1, 999_999, 3_376_848_336, 360_000_000_000_000, .max, 59_999_999_999]
        var position = Int(bytes[64..<72].reduce(0) { $0 << 8 | UInt64($1) })
        for index in 0..<(names.count + 1) {
            let extra = Int(bytes[(position + 36)..<(position + 40)].reduce(0) { $0 << 8 | UInt32($1) })
            let lengths = bytes[(position + 12)..<(position + 16)].map { Int($0) }
            if index > 0 {
                bytes.store(clocks[index % clocks.count], at: position + 24)
                bytes.store(sizes[index % sizes.count], at: position + 40)
            }
            position += 40 + extra + lengths[0] << 8 + lengths[1] + lengths[2] << 8 + lengths[3]
            position = (position + 7) / 8 * 8
        }
        return bytes
    }

    @Test("Every way to name a file, and every kind of file, gets the same answer")
    func files() throws {
        let comparison = try Comparison()
        try comparison.addGolden("v3-512")
        try comparison.add("raw.img", Array("raw".utf8))
        try comparison.add("empty.img", [])
        try comparison.add("zeros.img", [UInt8](repeating: 0, count: 4096))
        try comparison.add("we:ird.qcow2", Fixtures.bytes("v3-512.qcow2"))
        try comparison.add("com,ma.qcow2", Fixtures.bytes("v3-512.qcow2"))
        try comparison.add("short.qcow2", Array(Fixtures.bytes("v3-512.qcow2").prefix(64)))
        try comparison.prepare("mkdir", "folder")
        try comparison.prepare("mkfifo", "pipe")
        try comparison.prepare("ln", "-s", "v3-512.qcow2", "link.qcow2")
        try comparison.prepare("ln", "-s", "nowhere", "broken.qcow2")
        var lines: [Invocation] = []
        for file in [
            "v3-512.qcow2", "./v3-512.qcow2", "file:v3-512.qcow2", "link.qcow2", "broken.qcow2", "missing.qcow2",
            "raw.img",
            "empty.img", "zeros.img", "we:ird.qcow2", "./we:ird.qcow2", "file:we:ird.qcow2", "com,ma.qcow2",
            "short.qcow2", "folder",
            "folder/x", "v3-512.qcow2/x", "", "file:", "file:missing", ":x", "nosuch:x", "json:", "json:{", "json:[]",
            "json:{}",
            "json:3", #"json:{"driver":"qcow2"}"#, #"json:{"driver":"qcow2","file":{"driver":"file"}}"#,
            #"json:{"driver":"nosuch"}"#,
            #"json:{"driver":"qcow2","file":{"driver":"file","filename":"missing"}}"#,
            #"json:{"driver":"qcow2","file":{"driver":"file","filename":"v3-512.qcow2","frob":1}}"#,
            #"json:{"driver":"qcow2","frob":true,"file":{"driver":"file","filename":"v3-512.qcow2"}}"#,
            #"json:{"driver":"raw","file":{"driver":"file","filename":"v3-512.qcow2"}}"#,
            #"json: { "driver" : "qcow2" , "file.filename" : "v3-512.qcow2", "file.driver":"file" } "#,
            #"json:{"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"v3-512.qcow2"}}"#,
        ] {
            for action in [["-l"], ["-d", "nosuch"], ["-a", "nosuch"], ["-U", "-l"], ["-U", "-d", "x"]] {
                lines.append(Invocation((["snapshot"] + action + [file]).map { Array($0.utf8) }))
            }
        }
        for raw in ["raw.img", "empty.img", "zeros.img", "missing.qcow2"] {
            lines.append(Invocation("snapshot", "-c", "x", raw))
            lines.append(Invocation("snapshot", raw))
        }
        for options in [
            "driver=qcow2,file.filename=v3-512.qcow2", "driver=qcow2,file.filename=com,,ma.qcow2",
            "file.filename=v3-512.qcow2",
            "filename=v3-512.qcow2", "driver=qcow2,filename=v3-512.qcow2", "driver=qcow2,file=v3-512.qcow2",
            "driver=qcow2",
            "driver=nosuch,file.filename=v3-512.qcow2", "driver=raw,file.filename=v3-512.qcow2", "", "v3-512.qcow2",
            "driver=qcow2,file.filename=v3-512.qcow2,frob=1", "driver=qcow2,file.filename=v3-512.qcow2,file.frob=1",
            "driver=qcow2,file.filename=missing", "driver=qcow2,file.filename=v3-512.qcow2,read-only=on",
            "driver=qcow2,file.filename=v3-512.qcow2,force-share=on",
            "driver=qcow2,file.filename=v3-512.qcow2,force-share=off",
            "driver=qcow2,file.filename=v3-512.qcow2,file.locking=off",
            "driver=qcow2,file.filename=v3-512.qcow2,lazy-refcounts=on",
            "driver=qcow2,file.filename=v3-512.qcow2,",
        ] {
            for action in [["-l"], ["-d", "nosuch"], ["-U", "-l"]] {
                lines.append(Invocation((["snapshot", "--image-opts"] + action + [options]).map { Array($0.utf8) }))
            }
        }
        for words in [
            [], [""], ["nosuch"], ["-Z"], ["--frob"], ["--help"], ["-h"], ["-V"], ["--version"], ["--vers"], ["-T"],
            ["--", "snapshot", "-l", "v3-512.qcow2"],
            ["-hV"], ["snapshot"], ["snapshot", "-h"], ["snapshot", "--help"], ["snapshot", "--he", "x"],
            ["-q", "snapshot", "-l", "v3-512.qcow2"],
            ["commit", "x"], ["rebase"], ["amend"], ["bitmap"], ["bench"], ["--help=1"], ["-Vx"],
        ] { lines.append(Invocation(words.map { Array($0.utf8) })) }
        try comparison.run(lines, then: .untouched)
    }

    @Test("Damaged headers and missing files are refused in the same words")
    func headers() throws {
        let comparison = try Comparison()
        var lines: [Invocation] = []
        let changes: [(String, Int, [UInt8])] = [
            ("version 4", 7, [4]), ("version 1", 7, [1]), ("version 0", 7, [0]), ("cluster bits 8", 23, [8]),
            ("cluster bits 22", 23, [22]),
            ("header 32", 103, [32]), ("header 624", 102, [2, 0x70]), ("backing offset", 14, [0x10, 0]),
            ("refcount order", 99, [7]),
            ("encryption 3", 35, [3]), ("encryption 2", 35, [2]), ("corrupt", 79, [2]), ("compression bit", 79, [8]),
            ("feature 5", 79, [32]), ("feature 29", 76, [32]), ("features", 76, [32, 0, 0, 0x20]),
            ("compression 1", 104, [1]), ("compression 7", 104, [7]),
            ("no reftable", 56, [0, 0, 0, 0]), ("large reftable", 56, [0, 1, 0, 0]), ("odd reftable", 55, [1]),
            ("far reftable", 48, [0x80]),
            ("odd snapshots", 71, [1]), ("far snapshots", 64, [0x80]), ("many snapshots", 60, [0, 2, 0, 0]),
            ("large L1", 36, [1, 0, 0, 0]),
            ("odd L1", 47, [1]), ("no L1", 36, [0, 0, 0, 0]), ("huge", 24, [0x10]), ("negative", 24, [0xFF]),
            ("autoclear", 90, [0xFF]),
            ("compatible", 80, [0xFF]), ("magic", 0, [0x58]), ("extended", 79, [16]),
        ]
        for (name, offset, bytes) in changes {
            var image = try Fixtures.bytes("v3-512.qcow2")
            image.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
            try comparison.add("\(name).qcow2", image)
            for action in [["-l"], ["-d", "nosuch"], ["-a", "nosuch"]] {
                lines.append(Invocation((["snapshot"] + action + ["\(name).qcow2"]).map { Array($0.utf8) }))
            }
            if !["autoclear", "compatible", "corrupt"].contains(name) {
                lines.append(Invocation("snapshot", "-c", "x", "\(name).qcow2"))
            }
        }
        try comparison.run(lines, then: .sameImages)
    }

    @Test("Images with a backing file, a data file or keys")
    func companions() throws {
        let comparison = try Comparison()
        try comparison.prepare("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
        try comparison.prepare(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "over.qcow2")
        try comparison.prepare(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "lost.qcow2")
        try comparison.prepare("sed", "-i", "s/base.qcow2/gone.qcow2/", "lost.qcow2")
        try comparison.prepare("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "data.qcow2", "1M")
        try comparison.prepare(
            "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=k", "-o",
            "encrypt.format=aes,encrypt.key-secret=s", "aes.qcow2", "1M")
        var lines: [Invocation] = []
        for file in ["over.qcow2", "data.qcow2"] {
            for action in [["-l"], ["-c", "x"], ["-l"], ["-a", "x"], ["-d", "x"], ["-l"]] {
                lines.append(Invocation((["snapshot"] + action + [file]).map { Array($0.utf8) }))
            }
        }
        for file in ["lost.qcow2", "aes.qcow2"] {
            for action in [["-l"], ["-a", "x"], ["-d", "x"]] {
                lines.append(Invocation((["snapshot"] + action + [file]).map { Array($0.utf8) }))
            }
        }
        let keyed = "driver=qcow2,file.filename=aes.qcow2,encrypt.format=aes,encrypt.key-secret=s"
        for action in [["-l"], ["-c", "x"], ["-a", "x"], ["-l"], ["-d", "x"]] {
            lines.append(
                Invocation(
                    (["snapshot", "--object", "secret,id=s,data=k", "--image-opts"] + action + [keyed]).map {
                        Array($0.utf8)
                    }))
        }
        try comparison.run(lines, then: .sameImages)
    }

    @Test("An image that somebody uses is left alone in the same words", arguments: [true, false])
    func locked(_ isWriter: Bool) throws {
        let comparison = try Comparison()
        try comparison.addGolden("v3-512")
        var lines: [Invocation] = []
        for file in ["v3-512.qcow2", "file:v3-512.qcow2", "./v3-512.qcow2"] {
            for action in [["-l"], ["-lU"], ["-c", "x"], ["-a", "first"], ["-d", "first"], ["-U", "-c", "x"], []] {
                lines.append(Invocation((["snapshot"] + action + [file]).map { Array($0.utf8) }))
            }
            lines.append(
                Invocation("snapshot", "-l", "--image-opts", "driver=qcow2,file.filename=\(file),file.locking=off"))
        }
        try comparison.run(lines, then: .untouched) { theirs, ours, run in
            let held = try [theirs, ours].map { folder in
                try HeldImage("\(folder)/v3-512.qcow2", isWriter ? .writing : .reading)
            }
            try withExtendedLifetime(held) { try run() }
        }
    }

    /// An image that stays open, and locked.
    private final class HeldImage {
        let image: Image<FileStorage>

        init(_ path: String, _ access: FileStorage.Access) throws { image = try Image.open(path, for: access) }
    }
}

extension [UInt8] {
    /// Stores a big-endian integer.
    mutating func store(_ value: UInt64, at offset: Int) {
        for index in 0..<8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> (56 - 8 * index)) }
    }
}
