// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A text of bytes, for what is printed as it came: names and paths may be any bytes.
struct ByteText: ExpressibleByStringInterpolation {
    var bytes: [UInt8]

    init(_ bytes: [UInt8] = []) { self.bytes = bytes }
    init(stringLiteral value: String) { bytes = Array(value.utf8) }
    init(stringInterpolation: StringInterpolation) { bytes = stringInterpolation.bytes }

    struct StringInterpolation: StringInterpolationProtocol {
        var bytes: [UInt8] = []
        init(literalCapacity: Int, interpolationCount: Int) {}
        mutating func appendLiteral(_ literal: String) { bytes += literal.utf8 }
        mutating func appendInterpolation(_ value: [UInt8]) { bytes += value }
        mutating func appendInterpolation(_ value: ByteText) { bytes += value.bytes }
        mutating func appendInterpolation(_ value: some StringProtocol) { bytes += value.utf8 }
        mutating func appendInterpolation(_ value: some BinaryInteger) { bytes += String(value).utf8 }
    }

    static func += (text: inout ByteText, other: ByteText) { text.bytes += other.bytes }

    /// The text in a column of a number of bytes: padded with blanks, never cut.
    func padded(_ width: Int, right: Bool = false) -> ByteText {
        let blanks = [UInt8](repeating: UInt8(ascii: " "), count: max(0, width - bytes.count))
        return ByteText(right ? blanks + bytes : bytes + blanks)
    }
}

/// The end of a command that didn't do what was asked, as qemu-img words it.
struct Refusal: Error {
    /// Each with its newline, if it has one.
    let lines: [ByteText]
    let status: Int32

    /// A refusal whose first line begins with the program's name.
    init(_ message: ByteText, then more: [ByteText] = [], status: Int32 = 1) {
        lines = ["qemu-img: \(message)\n"] + more
        self.status = status
    }

    /// A refusal in lines as they are.
    init(lines: [ByteText], status: Int32) {
        self.lines = lines
        self.status = status
    }

    /// A refusal of the command line, with the hint that follows those.
    static func usage(_ message: ByteText, of command: String? = nil, _ version: QemuVersion) -> Refusal {
        Refusal(message, then: [hint(command, version)])
    }

    /// What follows a complaint about the command line.
    static func hint(_ command: String?, _ version: QemuVersion) -> ByteText {
        let name = version >= .hasCommandHelp ? command.map { "qemu-img \($0)" } ?? "qemu-img" : "qemu-img"
        return "Try '\(name) --help' for more information\n"
    }

    /// A complaint of ``GetoptLong``, in the words of a version.
    init(_ complaint: GetoptLong.Complaint, lastWord: [UInt8], command: String?, _ version: QemuVersion) {
        status = 1
        guard version >= .hasCommandHelp, let command else {
            let what = complaint.isMissingArgument ? "missing argument for option" : "unrecognized option"
            lines = ["qemu-img: \(what) '\(lastWord)'\n", Self.hint(command, version)]
            return
        }
        let words: ByteText =
            switch complaint {
            case .unknownShort(let letter): "invalid option -- '\([letter])'"
            case .unknownLong(let text): "unrecognized option '--\(text)'"
            case .ambiguous(let text, let candidates):
                "option '--\(text)' is ambiguous; possibilities:\(candidates.map { " '--\($0)'" }.joined())"
            case .unwantedArgument(let name): "option '--\(name)' doesn't allow an argument"
            case .missingShortArgument(let letter): "option requires an argument -- '\([letter])'"
            case .missingLongArgument(let name): "option '--\(name)' requires an argument"
            }
        lines = ["qemu-img \(command): \(words)\n", Self.hint(command, version)]
    }

    func report() { for line in lines { Console.writeError(line) } }
}

extension Console {
    /// Writes to standard output; like qemu-img, takes no notice of failures.
    static func writeOutput(_ text: ByteText) { _ = writeAll(text.bytes, to: 1) }
    static func writeError(_ text: ByteText) { _ = writeAll(text.bytes, to: 2) }
}
