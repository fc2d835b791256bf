// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A parsed JSON text, for file arguments that start with `json:`.
indirect enum ParsedJSON {
    case null
    case bool(Bool)
    case number(String)
    case string(String)
    case array([ParsedJSON])
    case object([(key: String, value: ParsedJSON)])

    /// A text that is no JSON, in QEMU's words.
    struct Failure: Error { let message: String }

    /// Parses a whole text; nesting is limited, so that no input can exhaust the stack.
    init(parsing text: String) throws(Failure) {
        var parser = Parser(rest: Array(text.unicodeScalars)[...])
        parser.skipBlanks()
        guard !parser.rest.isEmpty else { throw Failure(message: "Expecting a JSON value") }
        self = try parser.value(depth: 0)
        parser.skipBlanks()
        guard parser.rest.isEmpty else { throw Failure(message: "JSON parse error, expecting end of input") }
    }

    /// Every value that has no members, by its path in dots.
    func flattened(prefix: String = "") -> [String: String] {
        func path(_ key: String) -> String { prefix.isEmpty ? key : "\(prefix).\(key)" }
        var result: [String: String] = [:]
        switch self {
        case .null: break
        case .bool(let value): result[prefix] = value ? "on" : "off"
        case .number(let text), .string(let text): result[prefix] = text
        case .array(let values):
            for (index, value) in values.enumerated() {
                result.merge(value.flattened(prefix: path(String(index)))) { $1 }
            }
        case .object(let members):
            for member in members { result.merge(member.value.flattened(prefix: path(member.key))) { $1 } }
        }
        return result
    }

    private struct Parser {
        var rest: ArraySlice<UnicodeScalar>

        mutating func skipBlanks() { rest = rest.drop { " \t\n\r".unicodeScalars.contains($0) } }

        private static let early = Failure(message: "JSON parse error, premature EOI")

        mutating func value(depth: Int) throws(Failure) -> ParsedJSON {
            guard depth < 64 else { throw Failure(message: "JSON nesting is too deep") }
            skipBlanks()
            guard let first = rest.first else { throw Self.early }
            switch first {
            case "{": return try object(depth)
            case "[": return try array(depth)
            case "\"", "'": return .string(try string())
            case "-", "0"..."9":
                let text = rest.prefix { "+-.eE0123456789".unicodeScalars.contains($0) }
                rest = rest.dropFirst(text.count)
                return .number(String(String.UnicodeScalarView(text)))
            default:
                let word = String(String.UnicodeScalarView(rest.prefix { ("a"..."z").contains($0) }))
                rest = rest.dropFirst(word.unicodeScalars.count)
                switch word {
                case "true": return .bool(true)
                case "false": return .bool(false)
                case "null": return .null
                case "": throw Failure(message: "JSON parse error, stray '\(first)'")
                default: throw Failure(message: "JSON parse error, invalid keyword '\(word)'")
                }
            }
        }

        private mutating func object(_ depth: Int) throws(Failure) -> ParsedJSON {
            var members: [(key: String, value: ParsedJSON)] = []
            rest.removeFirst()
            skipBlanks()
            if rest.first == "}" {
                rest.removeFirst()
                return .object([])
            }
            while true {
                skipBlanks()
                guard let quote = rest.first else { throw Self.early }
                guard quote == "\"" || quote == "'" else {
                    throw Failure(message: "JSON parse error, key is not a string in object")
                }
                let key = try string()
                try expect(":", "missing : in object pair")
                let value = try value(depth: depth + 1)
                guard !members.contains(where: { $0.key.utf8.elementsEqual(key.utf8) }) else {
                    throw Failure(message: "JSON parse error, duplicate key")
                }
                members.append((key, value))
                if try next(orEnd: "}", "expected separator in dict") { return .object(members) }
            }
        }

        private mutating func array(_ depth: Int) throws(Failure) -> ParsedJSON {
            var values: [ParsedJSON] = []
            rest.removeFirst()
            skipBlanks()
            if rest.first == "]" {
                rest.removeFirst()
                return .array([])
            }
            while true {
                values.append(try value(depth: depth + 1))
                if try next(orEnd: "]", "expected separator in list") { return .array(values) }
            }
        }

        private mutating func next(orEnd end: UnicodeScalar, _ message: String) throws(Failure) -> Bool {
            skipBlanks()
            guard let scalar = rest.popFirst() else { throw Self.early }
            guard scalar == end || scalar == "," else { throw Failure(message: "JSON parse error, \(message)") }
            return scalar == end
        }

        private mutating func expect(_ scalar: UnicodeScalar, _ message: String) throws(Failure) {
            skipBlanks()
            guard let first = rest.popFirst() else { throw Self.early }
            guard first == scalar else { throw Failure(message: "JSON parse error, \(message)") }
        }

        private mutating func string() throws(Failure) -> String {
            guard let quote = rest.popFirst() else { throw Self.early }
            var units: [UInt16] = []
            while let scalar = rest.popFirst() {
                if scalar == quote { return String(decoding: units, as: UTF16.self) }
                guard scalar == "\\" else {
                    units += String(scalar).utf16
                    continue
                }
                guard let escape = rest.popFirst() else { break }
                switch escape {
                case "b": units.append(8)
                case "f": units.append(12)
                case "n": units.append(10)
                case "r": units.append(13)
                case "t": units.append(9)
                case "\"", "'", "\\", "/": units += String(escape).utf16
                case "u":
                    let digits = String(String.UnicodeScalarView(rest.prefix(4)))
                    guard digits.unicodeScalars.count == 4, let unit = UInt16(digits, radix: 16) else {
                        throw Failure(message: "JSON parse error, invalid hex escape '\\u\(digits)' in string")
                    }
                    rest = rest.dropFirst(4)
                    units.append(unit)
                default: throw Failure(message: "JSON parse error, invalid escape in string")
                }
            }
            throw Self.early
        }
    }
}
