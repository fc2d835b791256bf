// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A JSON value as qemu-img prints it: keys in the order given, four blanks a level, everything but ASCII escaped.
indirect enum QemuJSON {
    case bool(Bool)
    case number(Int64)
    /// Any bytes.
    case string([UInt8])
    case array([QemuJSON])
    case object([(String, QemuJSON)])

    static func string(_ text: String) -> QemuJSON { .string(Array(text.utf8)) }

    /// The text, without a newline at the end.
    func text(indent: String = "") -> String {
        let inner = indent + "    "
        switch self {
        case .bool(let value): return value ? "true" : "false"
        case .number(let value): return String(value)
        case .string(let value): return Self.quoted(value)
        case .array(let values):
            guard !values.isEmpty else { return "[\n\(indent)]" }
            return "[\n" + values.map { inner + $0.text(indent: inner) }.joined(separator: ",\n") + "\n\(indent)]"
        case .object(let members):
            guard !members.isEmpty else { return "{\n\(indent)}" }
            let lines = members.map { "\(inner)\"\($0.0)\": \($0.1.text(indent: inner))" }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(indent)}"
        }
    }

    /// The lines by which `info` shows an object's members to people.
    func lines(indent: Int) -> ByteText {
        var text = ByteText()
        let blanks = String(repeating: " ", count: 4 * indent)
        func add(_ key: String, _ value: QemuJSON) {
            switch value {
            case .bool(let value): text += "\(blanks)\(key): \(value ? "true" : "false")\n"
            case .number(let value): text += "\(blanks)\(key): \(value)\n"
            case .string(let value): text += "\(blanks)\(key): \(value)\n"
            case .array, .object: text += "\(blanks)\(key):\n\(value.lines(indent: indent + 1))"
            }
        }
        switch self {
        case .object(let members):
            for (key, value) in members { add(String(key.map { $0 == "-" ? " " : $0 }), value) }
        case .array(let values): for (index, value) in values.enumerated() { add("[\(index)]", value) }
        default: break
        }
        return text
    }

    private static func quoted(_ value: [UInt8]) -> String {
        var result = "\""
        for scalar in scalars(value) {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\u{8}": result += "\\b"
            case "\u{C}": result += "\\f"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case " "..."~": result.unicodeScalars.append(scalar)
            default: for unit in String(scalar).utf16 { result += escape(unit) }
            }
        }
        return result + "\""
    }

    private static func escape(_ unit: UInt16) -> String {
        let digits = String(unit, radix: 16, uppercase: true)
        return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    }

    /// Decodes UTF-8 as QEMU does: each sequence that isn't valid becomes one replacement character, and an overlong
    /// zero is a zero.
    private static func scalars(_ bytes: [UInt8]) -> [UnicodeScalar] {
        var result: [UnicodeScalar] = []
        var index = 0
        while index < bytes.count {
            let lead = bytes[index]
            index += 1
            if lead < 0x80 {
                result.append(UnicodeScalar(lead))
                continue
            }
            // The lead byte's run of ones is the length; one alone is a stray continuation.
            let length = (~lead).leadingZeroBitCount
            guard length >= 2, length <= 6 else {
                result.append("\u{FFFD}")
                continue
            }
            var value = UInt32(lead) & (0x7F >> UInt32(length))
            var count = 1
            while count < length, index < bytes.count, bytes[index] & 0xC0 == 0x80 {
                value = value << 6 | UInt32(bytes[index] & 0x3F)
                index += 1
                count += 1
            }
            let smallest: [UInt32] = [0, 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000]
            if lead == 0xC0, count == 2, value == 0 {
                result.append("\u{0}")
            } else if count == length, value >= smallest[length], value & 0xFFFE != 0xFFFE,
                !(0xFDD0...0xFDEF).contains(value), let scalar = UnicodeScalar(value)
            {
                result.append(scalar)
            } else {
                result.append("\u{FFFD}")
            }
        }
        return result
    }
}
