// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2
import TestTools
import Testing

/// The other subcommands, on images of every geometry.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct QemuImgCommandTests {
    /// A master folder with the golden images, images made by the tools, and files that are none.
    private func menagerie() throws -> (comparison: Comparison, files: [String]) {
        let comparison = try Comparison()
        for name in goldenImages { try comparison.addGolden(name) }
        try comparison.add("raw.img", Array("raw".utf8))
        try comparison.add("empty.img", [])
        try comparison.prepare("mkdir", "sub")
        for (name, options) in [
            ("plain", []), ("luks", ["encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]),
            ("aes", ["encrypt.format=aes,encrypt.key-secret=s"]), ("data", ["data_file=d.raw"]),
            ("lazy", ["lazy_refcounts=on,compression_type=zstd,refcount_bits=64,cluster_size=2M"]),
            ("old", ["compat=0.10"]),
        ] {
            let words = ["create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=k"]
            let options = options.flatMap { ["-o", $0] }
            // On a busy machine qemu-img sometimes can't time its key derivation, and gives up; a later try works.
            for attempt in 0..<200 {
                do {
                    try comparison.prepare("qemu-img", words + options + ["\(name).qcow2", "3M"])
                    break
                } catch  where attempt < 199 { usleep(50_000) }
            }
        }
        try comparison.prepare(
            "qemu-io",
            [
                "-c", "write -P 1 0 64k", "-c", "write -P 2 256k 128k", "-c", "write -z 512k 64k", "-c",
                "write -P 3 1M 64k",
                "plain.qcow2",
            ])
        try comparison.prepare("qemu-img", ["bitmap", "--add", "-g", "4096", "plain.qcow2", "bitmap \u{1F600}"])
        try comparison.prepare("qemu-img", ["bitmap", "--add", "--disable", "plain.qcow2", "off"])
        for (name, back) in [("over", "plain.qcow2"), ("sub/over", "../plain.qcow2"), ("top", "sub/over.qcow2")] {
            try comparison.prepare(
                "qemu-img", ["create", "-q", "-f", "qcow2", "-b", back, "-F", "qcow2", "\(name).qcow2", "4M"])
        }
        try comparison.prepare("qemu-io", ["-c", "write -P 7 64k 64k", "-c", "write -z 256k 64k", "over.qcow2"])
        try comparison.prepare(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "lost.qcow2", "1M"])
        try comparison.prepare(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-b", "raw.img", "-F", "raw", "onraw.qcow2", "1M"])
        try comparison.prepare("cp", ["plain.qcow2", "same.qcow2"])
        try comparison.prepare("qemu-io", ["-c", "write -P 9 640k 64k", "same.qcow2"])
        let files =
            goldenImages.map { "\($0).qcow2" } + [
                "plain.qcow2", "luks.qcow2", "aes.qcow2", "data.qcow2", "lazy.qcow2", "old.qcow2", "over.qcow2",
                "sub/over.qcow2", "top.qcow2", "lost.qcow2", "onraw.qcow2", "same.qcow2", "raw.img", "empty.img",
                "missing.qcow2",
                "sub", "file:plain.qcow2", "./plain.qcow2", "nosuch:x", "",
                #"json:{"driver":"qcow2","file":{"driver":"file","filename":"plain.qcow2"}}"#,
            ]
        return (comparison, files)
    }

    private func lines(_ command: String, _ options: [[String]], _ files: [String]) -> [Invocation] {
        files.flatMap { file in
            options.map { Invocation(([command] + $0 + [file]).map { Array($0.utf8) }) }
        }
    }

    @Test("info says what qemu-img says, for people and as JSON, of images and whole chains")
    func info() throws {
        let (comparison, files) = try menagerie()
        var all = lines(
            "info",
            [
                [], ["--output=json"], ["--output", "human", "-U"], ["--backing-chain"],
                ["--backing-chain", "--output=json"], ["--output=json", "--backing-c", "--force"],
            ], files)
        all += lines(
            "info",
            [
                ["-f", "qcow2"], ["-f", "nosuch"], ["-f", "raw"], ["-f", "vmdk"], ["--output=foo"], ["-Z"],
                ["--output"],
                ["extra"], ["--image-opts"], ["-f", "qcow2", "--image-opts"], ["-q"], ["--help"],
                ["--output=json", "--object", "x"],
            ], ["plain.qcow2", "raw.img"])
        for file in ["plain.qcow2", "sub/over.qcow2", "missing"] {
            all.append(Invocation("info", "--image-opts", "driver=qcow2,file.filename=\(file)"))
        }
        all.append(Invocation("info"))
        try comparison.run(all, then: .untouched)
    }

    @Test("check counts what qemu-img counts, for people and as JSON")
    func check() throws {
        let (comparison, files) = try menagerie()
        var all = lines("check", [[], ["--output=json"], ["-q"], ["-U"], ["-T", "writeback"]], files)
        all += lines(
            "check",
            [
                ["-f", "qcow2"], ["-f", "nosuch"], ["-f", "raw"], ["--output=foo"], ["-Z"], ["-r", "foo"], ["-r"],
                ["extra"], ["-U", "-r", "all"],
            ], ["plain.qcow2", "raw.img"])
        all.append(Invocation("check"))
        try comparison.run(all, then: .untouched)
    }

    @Test("map shows the extents that qemu-img shows, through backing files")
    func map() throws {
        let (comparison, files) = try menagerie()
        var all = lines(
            "map", [[], ["--output=json"], ["-s", "64k", "-l", "300k"], ["--output=json", "-s", "100", "-l", "2M"]],
            files)
        all += lines(
            "map",
            [
                ["-f", "qcow2"], ["-f", "nosuch"], ["--output=x"], ["-s", "x"], ["-l", "-1"], ["-s", "10M"],
                ["--output=json", "-s", "10M"], ["--output=json", "-s", "1"], ["-s", "0x10000"], ["-l", "1.5k"], ["-U"],
                ["-Z"],
                ["--start-offset=64k", "--max-length", "64k"], ["-s", "99999999999999999999"], ["-s", "8E"], ["extra"],
            ], ["plain.qcow2"])
        all.append(Invocation("map"))
        try comparison.run(all, then: .untouched)
    }

    @Test("compare finds the difference that qemu-img finds")
    func compare() throws {
        let (comparison, _) = try menagerie()
        let files = [
            "plain.qcow2", "same.qcow2", "over.qcow2", "sub/over.qcow2", "lazy.qcow2", "v3-512.qcow2",
            "v3-4k-zstd.qcow2", "raw.img", "empty.img", "missing.qcow2",
        ]
        var all: [Invocation] = []
        for first in files {
            for second in files {
                for options in [[], ["-s"], ["-q"], ["-U", "-s"]] {
                    all.append(Invocation((["compare"] + options + [first, second]).map { Array($0.utf8) }))
                }
            }
        }
        for options in [
            ["-f", "nosuch"], ["-F", "nosuch"], ["-Z"], ["-f"], ["extra"], ["-T", "none"],
            ["-f", "qcow2", "-F", "qcow2"],
        ] {
            all.append(Invocation((["compare"] + options + ["plain.qcow2", "same.qcow2"]).map { Array($0.utf8) }))
        }
        all.append(Invocation("compare", "plain.qcow2"))
        try comparison.run(all, then: .untouched)
    }

    @Test("resize makes the same disks", arguments: goldenImages)
    func resize(_ golden: String) throws {
        let comparison = try Comparison()
        try comparison.addGolden(golden)
        let file = "\(golden).qcow2"
        var all: [Invocation] = []
        for words in [
            ["4k"], ["+8k"], ["-4k"], ["--shrink", "-4k"], ["1x"], ["0"], ["-1P"], ["+0"], ["1.5k"], ["+"],
            ["--shrink", "1k"],
        ] {
            var line = ["resize"] + words
            line.insert(file, at: line.count - 1)
            all.append(Invocation(line.map { Array($0.utf8) }))
        }
        all += [
            Invocation("resize", "-q", file, "64k"), Invocation("resize", file), Invocation("resize"),
            Invocation("resize", "--preallocation=bad", file, "1M"), Invocation("resize", "-Z", file, "1M"),
            Invocation("resize", file, file, "1M"), Invocation("resize", "missing", "1M"),
            Invocation("resize", file, "8E"),
            Invocation("snapshot", "-a", "first", file), Invocation("resize", file, "+1M"),
            Invocation("resize", "--shrink", file, "16k"), Invocation("snapshot", "-l", file),
        ]
        try comparison.run(all, then: .sameImages)
    }

    @Test("create makes the same images, and refuses in the same words")
    func create() throws {
        let comparison = try Comparison()
        try comparison.addGolden("v3-512")
        try comparison.addGolden("v3-4k")
        var all: [Invocation] = []
        func add(_ words: [String]) { all.append(Invocation((["create"] + words).map { Array($0.utf8) })) }
        for (index, options) in [
            "compat=0.10", "compat=1.1", "compat=v2", "compat=v3", "cluster_size=512", "cluster_size=2M",
            "cluster_size=4k,refcount_bits=1",
            "refcount_bits=64", "refcount_bits=8,lazy_refcounts=on", "extended_l2=on", "compression_type=zstd",
            "preallocation=metadata",
            "preallocation=off", "extended_l2=on,cluster_size=16k,preallocation=metadata",
            "compat=0.10,preallocation=metadata",
            "cluster_size=4k,cluster_size=8k",
        ].enumerated() {
            for size in ["0", "1000", "1M", "1.5k", "64k", "0x1000"] {
                add(["-f", "qcow2", "-o", options, "new\(index)-\(size).qcow2", size])
            }
        }
        for words in [
            ["-f", "qcow2"], ["-f", "qcow2", "x.qcow2"], ["-f", "qcow2", "x.qcow2", "1x"],
            ["-f", "qcow2", "x.qcow2", "1M", "2M"],
            ["-f", "qcow2", "x.qcow2", "8E"], ["-f", "qcow2", "x.qcow2", "99999999999999999999"],
            ["-f", "nosuch", "x.qcow2", "1M"],
            ["-f", "qcow2", "-o", "size=1M", "y.qcow2", "2M"], ["-f", "qcow2", "-o", "size=1M", "y.qcow2"],
            ["-f", "qcow2", "-Z", "x", "1M"],
            ["-f", "qcow2", "-b", "", "x.qcow2", "1M"], ["-f", "qcow2", "-F", "qcow2", "x.qcow2", "1M"],
            ["-f", "qcow2", "-b", "v3-4k.qcow2", "x.qcow2"], ["-f", "qcow2", "-b", "gone", "-F", "qcow2", "x.qcow2"],
            ["-f", "qcow2", "-b", "gone", "-F", "nosuch", "x.qcow2"],
            ["-f", "qcow2", "-b", "gone", "-F", "qcow2", "x.qcow2", "1M"],
            ["-f", "qcow2", "-b", "v3-4k.qcow2", "-F", "qcow2", "over1.qcow2"],
            ["-f", "qcow2", "-b", "v3-4k.qcow2", "-F", "qcow2", "over2.qcow2", "3M"],
            ["-f", "qcow2", "-o", "backing_file=v3-4k.qcow2,backing_fmt=qcow2", "over3.qcow2"],
            ["-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "over4.qcow2", "1M"],
            ["-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "x.qcow2"], ["-f", "qcow2", "nodir/x.qcow2", "1M"],
            ["-q", "-f", "qcow2", "quiet.qcow2", "1M"],
            ["-f", "qcow2", "v3-512.qcow2", "2M"], ["-f", "qcow2", "-o", "", "x.qcow2", "1M"],
            ["-f", "qcow2", "-o", "cluster_size=1x", "x.qcow2", "1M"],
            ["-h"], ["-f"], ["one.qcow2", "-f", "qcow2", "1M"],
        ] { add(words) }
        for options in [
            "foo=1", "cluster_size=1000", "cluster_size=4M", "refcount_bits=3", "refcount_bits=128",
            "compat=0.10,refcount_bits=8",
            "compat=0.10,lazy_refcounts=on", "compat=0.10,compression_type=zstd", "compat=9",
            "extended_l2=on,cluster_size=4k",
            "preallocation=bad", "compression_type=bad", "lazy_refcounts=bad", "extended_l2=on,compat=0.10",
        ] { add(["-f", "qcow2", "-o", options, "bad.qcow2", "1M"]) }
        add(["-f", "qcow2", "-o", "cluster_size=512", "large.qcow2", "1P"])
        try comparison.run(all, then: .sameImages)
    }

    @Test("convert writes the same raw files", arguments: ["v2-512", "v3-4k-zstd", "v3-16k-extended", "v3-512"])
    func convert(_ golden: String) throws {
        let comparison = try conversions(golden)
        let file = "\(golden).qcow2"
        var all: [Invocation] = []
        for (index, options) in [
            [], ["-l", "first"], ["-l", "1"], ["-l", "snapshot.id=1"], ["-l", "snapshot.name=first"],
            ["-l", "snapshot.id=1,snapshot.name=first"], ["-l", "snapshot.name=no"], ["-l", "snapshot.foo=1"],
            ["-l", "nosuch"], ["-l", ""], ["-q"], ["-p"], ["-S", "4k"], ["-S", "0"], ["-S", "100"], ["-S", "x"],
            ["-t", "none"], ["-W"], ["-m", "4"], ["-m", "0"], ["-m", "x"], ["-Z"], ["-c", "-O", "raw"], ["-p", "-q"],
            ["-O", "nosuch"], ["-f", "nosuch"], ["-n"], ["-U"], ["-O", "raw", "-f", "qcow2"], ["-C", "-c"],
            ["-r", "1M"],
            ["-o", ""], ["-n", "-o", "size=1M"], ["-f", "raw"], ["-B", file],
        ].enumerated() {
            all.append(Invocation((["convert"] + options + [file, "out\(index).raw"]).map { Array($0.utf8) }))
        }
        all += [
            Invocation("convert", "over.qcow2", "over.raw"), Invocation("convert", file, "large.raw"),
            Invocation("convert", "-n", "-O", "raw", file, "small.raw"), Invocation("convert", file),
            Invocation("convert"), Invocation("convert", "missing", "x.raw"), Invocation("convert", file, "no/x.raw"),
            Invocation("convert", file, file), Invocation("convert", "-l", "first", file, file, "x.raw"),
            Invocation("convert", file, "text.img", "empty.img", "over.qcow2", "all.raw"),
            Invocation("convert", "text.img", "text.raw"), Invocation("convert", "-p", "empty.img", "empty.raw"),
            Invocation("convert", "-f", "raw", "-l", "x", "text.img", "x.raw"),
            Invocation("convert", "text.img", "nosuch", "x.raw"),
        ]
        try comparison.run(all, then: .sameImages)
    }

    @Test("convert makes the same images", arguments: ["v2-512", "v3-4k-zstd", "v3-16k-extended", "v3-512"])
    func convertToImages(_ golden: String) throws {
        let comparison = try conversions(golden)
        let file = "\(golden).qcow2"
        try comparison.prepare("qemu-img", "create", "-q", "-f", "qcow2", "there.qcow2", "1M")
        try comparison.prepare("qemu-io", "-c", "write -P 9 0 1M", "there.qcow2")
        try comparison.prepare("qemu-img", "create", "-q", "-f", "qcow2", "tiny.qcow2", "512")
        var all: [Invocation] = []
        func add(_ words: [String]) {
            all.append(Invocation((["convert", "-O", "qcow2"] + words).map { Array($0.utf8) }))
        }
        for (index, options) in [
            [], ["-l", "first"], ["-p"], ["-q", "-p"], ["-S", "0"], ["-S", "64k"], ["-o", "cluster_size=512"],
            ["-o", "cluster_size=2M"], ["-o", "compat=0.10"], ["-o", "compat=v3,refcount_bits=8"],
            ["-o", "cluster_size=16k,extended_l2=on"], ["-o", "compression_type=zstd"], ["-o", "lazy_refcounts=on"],
            ["-o", "preallocation=metadata"], ["-o", "cluster_size=4k", "-o", "refcount_bits=64"], ["-o", "size=9M"],
            ["-U"], ["-f", "raw"], ["-f", "qcow2", "-m", "2", "-W"], ["-c"], ["-c", "-p", "-l", "first"],
            ["-c", "-o", "compression_type=zstd"], ["-c", "-f", "raw"],
            ["-o", "cluster_size=1000"], ["-o", "foo=1"], ["-o", "compat=9"], ["-o", ""], ["-o", "cluster_size=x"],
            ["-o", "compression_type=bad"], ["-o", "compression_type=zstd,compat=0.10"], ["-o", "refcount_bits=3"],
            ["-n", "-o", "compat=v3"], ["-C", "-c"], ["-c", "-o", "preallocation=metadata"], ["-l", "nosuch"],
            ["-o", "preallocation=bad"], ["-o", "lazy_refcounts=bad"], ["-o", "backing_file=x"],
        ].enumerated() { add(options + [file, "new\(index).qcow2"]) }
        for words in [
            ["over.qcow2", "flat.qcow2"], ["text.img", "text.qcow2"], ["empty.img", "empty.qcow2"],
            ["-f", "raw", "text.img", "text2.qcow2"], ["-p", "holes.img", "holes.qcow2"],
            [file, "text.img", "over.qcow2", "all.qcow2"], ["-c", file, "there.qcow2"],
            ["-c", "holes.img", "packed.qcow2"], ["-c", "empty.img", "none.qcow2"],
            ["-c", file, file], ["-c", file, "no/x.qcow2"], [file, "no/x.qcow2"], [file, file], [file, "there.qcow2"],
            ["-n", "over.qcow2", "there.qcow2"], ["-n", file, "tiny.qcow2"], ["-n", file, "missing.qcow2"],
            ["-n", file, "large.raw"], ["-n", "text.img", "there.qcow2"], ["missing", "x.qcow2"], [file],
            ["-l", "first", "text.img", "x.qcow2"],
        ] { add(words) }
        try comparison.run(all, then: .sameImages)
    }

    /// A golden image, an overlay of it, and files without a format.
    private func conversions(_ golden: String) throws -> Comparison {
        let comparison = try Comparison()
        try comparison.addGolden(golden)
        try comparison.prepare(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", "\(golden).qcow2", "-F", "qcow2", "over.qcow2")
        try comparison.prepare("truncate", "-s", "1M", "large.raw")
        try comparison.prepare("truncate", "-s", "512", "small.raw")
        try comparison.add("text.img", Array("text without a format".utf8))
        try comparison.add("empty.img", [])
        var holes = [UInt8](repeating: 0, count: 3 << 20)
        for index in 0..<100_000 { holes[1_000_000 + index] = UInt8(truncatingIfNeeded: index &* 7) }
        try comparison.add("holes.img", holes)
        return comparison
    }
}
