// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension QemuImg {
    /// Takes a subcommand's options apart; `--help`, `--object` and `--image-opts` are everybody's.
    ///
    /// - Parameters:
    ///   - words: The subcommand's words, its name first.
    ///   - context: The version's rules.
    ///   - short: The letters, as for ``GetoptLong``.
    ///   - long: The long options besides those that every subcommand has.
    ///   - body: Gets each other option with its argument.
    /// - Returns: The operands, and whether they are option strings; `nil` when help was asked for and printed.
    /// - Throws: ``Refusal``.
    static func operands(
        _ words: [[UInt8]], _ context: Context, short: String, long: [GetoptLong.LongOption],
        _ body: (String, [UInt8]) throws(Refusal) -> Void
    ) throws(Refusal) -> (operands: [[UInt8]], hasOptions: Bool)? {
        let name = words.first.map { String(decoding: $0, as: UTF8.self) } ?? ""
        let common = [
            GetoptLong.LongOption("help", as: "h"), GetoptLong.LongOption("object", takesArgument: true),
            GetoptLong.LongOption("image-opts"),
        ]
        var options = GetoptLong(words, short: short, long: common + long, ordering: context.ordering)
        var hasOptions = false
        while true {
            switch options.next() {
            case .option("h", _):
                Console.writeOutput(help(context.version, for: name))
                return nil
            case .option("object", let argument): try checkObject(argument ?? [])
            case .option("image-opts", _): hasOptions = true
            case .option(let identity, let argument): try body(identity, argument ?? [])
            case .complaint(let complaint):
                throw Refusal(complaint, lastWord: options.lastWord, command: name, context.version)
            case .end: return (Array(options.operands), hasOptions)
            }
        }
    }

    /// Reads `--output=human|json`; whether it is JSON.
    static func isJSON(_ argument: [UInt8], _ command: String, _ version: QemuVersion) throws(Refusal) -> Bool {
        switch String(decoding: argument, as: UTF8.self) {
        case "json": return true
        case "human": return false
        default:
            guard version >= .hasCommandHelp else {
                throw Refusal("--output must be used with human or json as argument.")
            }
            throw .usage("--output expects 'human' or 'json', not '\(argument)'", of: command, version)
        }
    }
}

/// A number of bytes with an optional fraction and unit, as qemu-img reads it.
enum SizeArgument {
    case value(UInt64)
    case invalid
    /// More than any file has.
    case tooLarge

    init(parsing word: [UInt8]) {
        var text = String(decoding: word, as: UTF8.self)[...]
        text = text.drop { $0 == " " || $0 == "\t" || $0 == "\n" }
        if text.hasPrefix("+") { text = text.dropFirst() }
        let isHexadecimal = text.hasPrefix("0x") || text.hasPrefix("0X")
        if isHexadecimal { text = text.dropFirst(2) }
        let digits = text.prefix { isHexadecimal ? $0.isHexDigit && $0.isASCII : "0123456789".contains($0) }
        var rest = text[digits.endIndex...]
        var fraction = 0.0
        if !isHexadecimal, rest.hasPrefix(".") {
            let decimals = rest.dropFirst().prefix { "0123456789".contains($0) }
            fraction = Double("0." + decimals + "0") ?? 0
            rest = rest.dropFirst(1 + decimals.count)
            if digits.isEmpty, decimals.isEmpty {
                self = .invalid
                return
            }
        } else if digits.isEmpty {
            self = .invalid
            return
        }
        let shifts: [Character: UInt64] = ["b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60]
        var shift: UInt64 = 0
        if let unit = rest.first {
            guard rest.count == 1, let known = shifts[Character(unit.lowercased())] else {
                self = .invalid
                return
            }
            shift = known
        }
        guard fraction == 0 || shift > 0 else {
            self = .invalid
            return
        }
        guard let whole = UInt64(digits.isEmpty ? "0" : digits, radix: isHexadecimal ? 16 : 10) else {
            self = .tooLarge
            return
        }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: 1 << shift)
        let part = UInt64(fraction * Double(UInt64(1) << shift) + 0.5)
        let (sum, carry) = scaled.addingReportingOverflow(part)
        self = overflow || carry ? .tooLarge : .value(sum)
    }

    /// The number, for an option or operand that must be one.
    func number(_ what: String, _ word: [UInt8], _ version: QemuVersion) throws(Refusal) -> UInt64 {
        switch self {
        case .value(let value) where value < 1 << 63: return value
        case .value, .tooLarge:
            throw Refusal("Invalid \(what) specified. Must be between 0 and 9223372036854775807.")
        case .invalid:
            if version >= .hasCommandHelp { throw Refusal("Invalid \(what) specified: '\(word)'") }
            throw Refusal(
                "Invalid \(what) specified. You may use k, M, G, T, P or E suffixes for",
                then: ["qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.\n"])
        }
    }
}
