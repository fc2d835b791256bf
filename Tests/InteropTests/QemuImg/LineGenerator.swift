// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing

/// Makes command lines: sensible ones, odd ones and wrong ones.
struct LineGenerator {
    var random: SplitMix64

    init(seed: UInt64) { random = SplitMix64(seed: seed) }

    mutating func pick<C: Collection>(_ collection: C) -> C.Element {
        collection[
            collection.index(collection.startIndex, offsetBy: Int.random(in: 0..<collection.count, using: &random))]
    }

    mutating func chance(_ one: Int, in all: Int) -> Bool { Int.random(in: 0..<all, using: &random) < one }

    /// Names that scripts or people might use, and others.
    static let names: [[UInt8]] =
        [
            "a", "b", "c", "1", "2", "3", "007", "snap 1", "ünï→😀", "--", "-l", "-x", "--help", "a,b=c", " lead",
            "trail ", "new\nline",
            "tab\t\u{7}", "'quote\"", "100%s%d", "", "snapshot.id=1",
        ].map { Array($0.utf8) } + [
            [0xFF, 0x41, 0x80], [0xC3], [UInt8](repeating: UInt8(ascii: "n"), count: 17),
            [UInt8](repeating: UInt8(ascii: "x"), count: 255), [UInt8](repeating: UInt8(ascii: "y"), count: 256),
            [UInt8](repeating: UInt8(ascii: "z"), count: 1024),
        ]

    /// A name; mostly one of the few that make lines meet each other's snapshots.
    mutating func name() -> [UInt8] { chance(2, in: 3) ? pick(Self.names.prefix(8)) : pick(Self.names) }

    /// One way of several to name a file, and whether that needs --image-opts.
    mutating func file(_ name: String) -> (word: String, hasOptions: Bool) {
        switch Int.random(in: 0..<12, using: &random) {
        case 0: ("file:\(name)", false)
        case 1: ("./\(name)", false)
        case 2: (#"json:{"driver":"qcow2","file":{"driver":"file","filename":"\#(name)"}}"#, false)
        case 3: (#"json:{"file.filename":"\#(name)"}"#, false)
        case 4: ("driver=qcow2,file.filename=\(name)", true)
        case 5: ("file.filename=\(name),driver=qcow2,file.driver=file", true)
        default: (name, false)
        }
    }

    /// A line for `snapshot`, mostly one that does something.
    mutating func snapshot(_ image: String) -> Invocation {
        let (file, hasOptions) = file(image)
        var options: [[[UInt8]]] = []
        let letter = pick(["l", "l", "c", "c", "c", "a", "a", "d", "d"])
        if letter == "l" {
            options.append([Array(pick(["-l", "-l", "-lq", "-ql", "-lU", "-Ulq"]).utf8)])
        } else {
            let name = name()
            let isAttached = chance(1, in: 4) && !name.isEmpty
            let cluster = chance(1, in: 8) ? "q" : ""
            let option = Array("-\(cluster)\(letter)".utf8)
            options.append(isAttached ? [option + name] : [option, name])
        }
        if chance(1, in: 6) { options.append([Array("-q".utf8)]) }
        if hasOptions { options.append([Array(pick(["--image-opts", "--image-opt", "--im"]).utf8)]) }
        if chance(1, in: 10) {
            options.append(
                ["--object", "secret,id=s\(Int.random(in: 0..<99, using: &random)),data=x"].map { Array($0.utf8) })
        }
        if chance(1, in: 12) { options.append([Array(pick(["-U", "--force-share", "--force"]).utf8)]) }
        if chance(1, in: 10) { options.append(wrongOption()) }
        if !chance(1, in: 40) { options.append([Array(file.utf8)]) }
        if chance(1, in: 40) { options.append([Array("extra".utf8)]) }
        options.shuffle(using: &random)
        var words = [Array("snapshot".utf8)] + options.flatMap { $0 }
        if chance(1, in: 25) { words.insert(Array("--".utf8), at: Int.random(in: 1...words.count, using: &random)) }
        let isPosix = chance(1, in: 25)
        return Invocation(words, environment: isPosix ? ["POSIXLY_CORRECT": "1"] : [:])
    }

    private mutating func wrongOption() -> [[UInt8]] {
        pick([
            ["-Z"], ["-lZ"], ["-Zl"], ["--frob"], ["--frob=1"], ["-f", "qcow2"], ["-l"], ["-c", "other"], ["-d", "a"],
            ["--object"], ["--object", "foo"], ["--object", "secret,data=x"], ["--object", "secret,id=s"],
            ["--object", "secret,id=s0,data=x,foo=y"], ["--image-opts=1"], ["-c"], ["-a"], ["-d"], ["-"],
            ["--force-share=on"],
            ["--object="], ["--list"], ["--"], ["-q", "-q"], ["-W", "x"], ["-:"],
        ]).map { Array($0.utf8) }
    }
}
