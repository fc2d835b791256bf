// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// A command line of qemu-img, as bytes.
struct Invocation: Sendable, CustomStringConvertible {
    /// Without the program's name.
    var words: [[UInt8]]
    var environment: [String: String] = [:]

    init(_ words: [[UInt8]], environment: [String: String] = [:]) {
        self.words = words
        self.environment = environment
    }

    init(_ words: String..., environment: [String: String] = [:]) {
        self.init(words.map { Array($0.utf8) }, environment: environment)
    }

    /// The subcommand, or the first word in its place.
    var command: String { words.first.map { String(decoding: $0, as: UTF8.self) } ?? "" }

    var description: String {
        (environment.map { "\($0)=\($1)" }.sorted() + ["qemu-img"] + words.map(Self.quoted)).joined(separator: " ")
    }

    /// A word for bash, whatever its bytes.
    static func quoted(_ word: [UInt8]) -> String {
        let plain = word.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                true
            default: Array("-_./,=:+".utf8).contains(byte)
            }
        }
        if plain, !word.isEmpty { return String(decoding: word, as: UTF8.self) }
        let isPrintable = word.allSatisfy { (0x20...0x7E).contains($0) && $0 != UInt8(ascii: "'") }
        if isPrintable { return "'" + String(decoding: word, as: UTF8.self) + "'" }
        return "$'" + word.map { "\\x" + String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() + "'"
    }
}

/// What a command line did, apart from its files.
struct Outcome: Equatable, CustomStringConvertible {
    let status: Int
    let output: [UInt8]
    let errors: [UInt8]

    /// The bytes as text, one character each, so that nothing gets lost.
    static func text(_ bytes: [UInt8]) -> String {
        String(String.UnicodeScalarView(bytes.map { UnicodeScalar($0) }))
    }
    var outputText: String { Self.text(output) }
    var errorText: String { Self.text(errors) }

    var description: String { "status \(status)\n1| \(outputText)\n2| \(errorText)" }
}

/// One of the two programs: the real qemu-img, or ours through a link of that name.
struct Program: Sendable {
    let path: String

    static let theirs: Program? = Tool.path(of: "qemu-img").map { Program(path: $0) }

    /// Makes the link in a folder; or a copy of that name, which anyone can run.
    static func ours(in folder: TemporaryFolder, isCopy: Bool = false) throws -> Program {
        let link = folder.file("qemu-img")
        let target = URL(fileURLWithPath: Tool.qsnap).standardizedFileURL.path
        if isCopy {
            try Tool.check("cp", [target, link])
        } else {
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: target)
        }
        return Program(path: link)
    }

    /// A run of many command lines, one after the other in one folder, by one shell: starting processes is most of
    /// the time.
    func start(
        _ lines: [Invocation], in folder: String, results: String, _ surroundings: Surroundings
    ) throws -> Process {
        try FileManager.default.createDirectory(atPath: results, withIntermediateDirectories: true)
        if surroundings == .unprivileged { try Tool.check("chmod", ["777", results]) }
        var script = "cd \(Invocation.quoted(Array(folder.utf8))) || exit 1\n"
        for (index, line) in lines.enumerated() {
            let variables = line.environment.map { "\($0)=\(Invocation.quoted(Array($1.utf8))) " }.sorted().joined()
            let words = line.words.map { " " + Invocation.quoted($0) }.joined()
            script += "\(variables)\(path)\(words) >\(results)/\(index).out 2>\(results)/\(index).err </dev/null\n"
            script += "echo $? >\(results)/\(index).rc\n"
        }
        let file = results + "/script.sh"
        try Data(script.utf8).write(to: URL(fileURLWithPath: file))
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Tool.path(of: "bash") ?? "/bin/bash")
        process.arguments = ["-c", #"exec "$@""#, "bash"] + surroundings.shell(folder) + [file]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        var environment = ProcessInfo.processInfo.environment
        for key in environment.keys where key.hasPrefix("QSNAP_") { environment[key] = nil }
        process.environment = environment.merging(["LC_ALL": "C", "TZ": "UTC"]) { $1 }
        try process.run()
        return process
    }

    /// What the command lines of a finished run did.
    static func outcomes(_ count: Int, results: String) throws -> [Outcome] {
        func bytes(_ name: String) throws -> [UInt8] {
            [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(results)/\(name)")))
        }
        return try (0..<count).map { index in
            let status = String(decoding: try bytes("\(index).rc"), as: UTF8.self)
            return Outcome(
                status: Int(status.trimmingCharacters(in: .whitespacesAndNewlines)) ?? -1,
                output: try bytes("\(index).out"), errors: try bytes("\(index).err"))
        }
    }
}

/// What the command lines may do to their folder.
enum Surroundings: Sendable {
    case ordinary
    /// They run as a user who owns none of the files.
    case unprivileged
    /// The folder is mounted read-only.
    case readOnly

    /// The words that run a script.
    func shell(_ folder: String) -> [String] {
        switch self {
        case .ordinary: ["bash"]
        case .unprivileged: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash"]
        case .readOnly:
            [
                "unshare", "-m", "bash", "-c",
                #"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec bash "$2""#, "bash", folder,
            ]
        }
    }

    /// Whether this machine lets us have them.
    var areAvailable: Bool {
        let script =
            switch self {
            case .ordinary: "true"
            case .unprivileged: "test $(id -u) = 0 && setpriv --reuid=65534 --regid=65534 --clear-groups true"
            case .readOnly: "unshare -m sh -c 'd=$(mktemp -d) && mount --bind $d $d && mount -o remount,bind,ro $d'"
            }
        return (try? Tool.run("bash", ["-c", script]).status) == 0
    }
}
