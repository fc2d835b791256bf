// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// `qsnap qemu-img ...`, and the program when it is named or linked `qemu-img`: qemu-img's words in, qemu-img's bytes
/// out, on this library.
///
/// This mode only parses and prints. Where qemu-img would lose data it refuses; the documentation lists every
/// difference.
enum QemuImg {
    /// What every command has around it.
    struct Context {
        let version: QemuVersion
        let ordering: GetoptLong.Ordering
    }

    /// The arguments behind the program's name, if the process was started in this mode.
    static func arguments(of words: [[UInt8]]) -> [[UInt8]]? {
        guard let program = words.first else { return nil }
        let name = Array("qemu-img".utf8)
        let base = program.split(separator: UInt8(ascii: "/")).last ?? []
        if base.elementsEqual(name) { return Array(words.dropFirst()) }
        return words.count > 1 && words[1] == name ? Array(words.dropFirst(2)) : nil
    }

    /// Runs a command, and returns the process's exit status.
    static func run(_ arguments: [[UInt8]]) -> Int32 {
        do throws(Refusal) {
            return try dispatch(arguments)
        } catch {
            error.report()
            return error.status
        }
    }

    private static func dispatch(_ arguments: [[UInt8]]) throws(Refusal) -> Int32 {
        guard let version = QemuVersion(parsing: environment(QemuVersion.variable)) else {
            throw Refusal("\(QemuVersion.variable) must be a version such as 7.2 or 10.1")
        }
        var options = GetoptLong(
            [Array("qemu-img".utf8)] + arguments, short: "hVT:",
            long: [
                GetoptLong.LongOption("help", as: "h"), GetoptLong.LongOption("version", as: "V"),
                GetoptLong.LongOption("trace", takesArgument: true, as: "T"),
            ], ordering: .requireOrder)
        while true {
            switch options.next() {
            case .option("h", _):
                Console.writeOutput(help(version))
                return 0
            case .option("V", _):
                Console.writeOutput(versionLine(version))
                return 0
            case .option:
                // Traces of a program that isn't there.
                continue
            case .complaint(let complaint):
                throw Refusal(complaint, lastWord: options.lastWord, command: nil, version)
            case .end:
                guard let name = options.operands.first else { throw .usage("Not enough arguments", version) }
                let isPosix = environment("POSIXLY_CORRECT") != nil
                let context = Context(version: version, ordering: isPosix ? .requireOrder : .permute)
                let command = String(decoding: name, as: UTF8.self)
                guard let body = commands[command] else { throw .usage("Command not found: \(name)", version) }
                return try body(Array(options.operands), context)
            }
        }
    }

    /// The commands, each of which gets its words with its own name in front.
    private static var commands: [String: ([[UInt8]], Context) throws(Refusal) -> Int32] {
        [
            "check": check, "compare": compare, "convert": convert, "create": create, "info": info, "map": map,
            "resize": resize,
            "snapshot": snapshot,
        ]
    }

    static func versionLine(_ version: QemuVersion) -> ByteText {
        "qemu-img version \(version.major).\(version.minor).0 (qsnap \(Main.version), not QEMU)\n"
    }

    /// Help for all commands or for one, which is our own and not QEMU's.
    static func help(_ version: QemuVersion, for command: String? = nil) -> ByteText {
        let lines = usages.filter { $0.hasPrefix(command.map { $0 + " " } ?? "") }.map { "  \($0)\n" }
        return """
            \(versionLine(version))usage: qemu-img [standard options] command [command options]
            qsnap takes the words of qemu-img for qcow2 images in local files:

            \(lines.joined())
            FILE is a path, file:PATH, json:{...}, or with --image-opts key=value,... .
            The environment variable \(QemuVersion.variable) (7.2 by default) chooses the version of
            qemu-img whose layouts and complaints are printed.

            """
    }

    private static let usages = [
        "check [--object OBJ] [--image-opts | -f FMT] [--output=human|json] [-q] [-U] FILE",
        "compare [--object OBJ] [--image-opts | -f FMT] [-F FMT] [-s] [-q] [-U] FILE1 FILE2",
        "convert [--object OBJ] [--image-opts | -f FMT] [-O raw] [-l SNAPSHOT] [-n] [-p] [-q] [-S SIZE] [-U] FILE OUTPUT",
        "create [-f qcow2] [-q] [-u] [-b BACKING -F FMT] [-o OPTIONS] FILE [SIZE]",
        "info [--object OBJ] [--image-opts | -f FMT] [--output=human|json] [--backing-chain] [-U] FILE",
        "map [--object OBJ] [--image-opts | -f FMT] [--output=human|json] [-s OFFSET] [-l LENGTH] [-U] FILE",
        "resize [--object OBJ] [--image-opts | -f FMT] [--shrink] [-q] FILE [+ | -]SIZE",
        "snapshot [--object OBJ] [--image-opts] [-U] [-q] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILE",
    ]

    static func environment(_ name: String) -> String? {
        // SAFETY: nothing changes the environment, and the text is copied at once.
        unsafe getenv(name).map { unsafe String(cString: $0) }
    }
}
