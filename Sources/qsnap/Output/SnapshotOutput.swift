// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

extension Snapshot {
    /// The snapshot with the documented keys.
    var json: JSON { json() }

    /// The snapshot with the documented keys, and with more of them.
    func json(with more: [(String, JSON)] = []) -> JSON {
        var members: [(String, JSON)] = [("id", .string(id)), ("name", .string(name))]
        // Bytes that no JSON string can hold are given beside the text, in hexadecimal.
        if !nameBytes.elementsEqual(name.utf8) { members.append(("name-hex", .string(hexadecimal(nameBytes)))) }
        if !idBytes.elementsEqual(id.utf8) { members.append(("id-hex", .string(hexadecimal(idBytes)))) }
        members += [
            ("date", .string(date.utcText)),
            ("date-sec", .number(UInt64(date.seconds))),
            ("date-nsec", .number(UInt64(date.nanoseconds))),
            ("disk-size", .number(diskSize)),
            ("vm-state-size", .number(vmStateSize)),
            ("vm-clock-nsec", .number(vmClock)),
            ("icount", icount.map { .number($0) } ?? .null),
        ]
        let known = Set(members.map(\.0))
        return .object(members + more.filter { !known.contains($0.0) })
    }

    /// The ID as a person sees it.
    var shortID: String { cell(idBytes) }
    /// The name as a person sees it.
    var shortName: String { cell(nameBytes) }

    static let columnTitles = ["ID", "NAME", "DATE", "VM SIZE", "VM CLOCK", "DISK SIZE"]

    var columns: [String] {
        [
            shortID, shortName, date.localText, vmStateSize == 0 ? "-" : size(vmStateSize),
            vmClock == 0 ? "-" : clock(vmClock), size(diskSize),
        ]
    }
}

/// Lays rows out in columns two blanks apart, without blanks at the ends of lines.
func table(_ rows: [[String]]) -> String {
    let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
        let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
        var line = cells.joined(separator: "  ")
        while line.utf8.last == UInt8(ascii: " ") { line.removeLast() }
        return line + "\n"
    }.joined()
}

/// Text on one line of a terminal, whole: what can't be seen as itself is escaped.
func printable(_ text: String) -> String { EscapedText.oneLine(text.utf8) }

/// Text from an image in a cell of a table or a part of a message: escaped, and of bounded width.
func cell(_ bytes: some Collection<UInt8>) -> String { EscapedText.oneLine(bytes, columns: EscapedText.columnLimit) }

/// A number of bytes with a binary unit and at most one decimal, rounded down.
func size(_ byteCount: UInt64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var unit = 0
    while unit < 6, byteCount >> UInt64(10 * (unit + 1)) > 0 { unit += 1 }
    let shift = UInt64(10 * unit)
    let whole = byteCount >> shift
    let rest = unit == 0 ? 0 : ((byteCount >> (shift - 10)) & 1023) * 10 / 1024
    return rest == 0 ? "\(whole) \(units[unit])" : "\(whole).\(rest) \(units[unit])"
}

/// A guest's run time as hours, minutes, seconds and milliseconds.
func clock(_ nanoseconds: UInt64) -> String {
    let milliseconds = nanoseconds / 1_000_000
    let seconds = milliseconds / 1000
    return "\(padded(seconds / 3600, 2)):\(padded(seconds / 60 % 60, 2)):\(padded(seconds % 60, 2))"
        + ".\(padded(milliseconds % 1000, 3))"
}

private func padded(_ number: some BinaryInteger, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.count)) + text
}

func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

extension SnapshotDate {
    /// Date and time in the local zone, as in `2026-11-23 17:04:05`.
    var localText: String {
        // SAFETY: the calls fill `parts` and keep nothing; the zone's name in it is not used.
        var parts = unsafe tm()
        var time = time_t(seconds)
        _ = unsafe localtime_r(&time, &parts)
        return Self.dayAndTime(unsafe Self.numbers(parts), between: " ")
    }

    /// Date and time in UTC with nanoseconds, as in `2026-11-23T16:04:05.123456789Z`.
    var utcText: String {
        // SAFETY: as above.
        var parts = unsafe tm()
        var time = time_t(seconds)
        _ = unsafe gmtime_r(&time, &parts)
        return Self.dayAndTime(unsafe Self.numbers(parts), between: "T") + ".\(padded(nanoseconds, 9))Z"
    }

    /// Year, month, day, hour, minute and second.
    private static func numbers(_ parts: tm) -> [Int32] {
        unsafe [
            parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
        ]
    }

    private static func dayAndTime(_ numbers: [Int32], between separator: String) -> String {
        let texts = zip(numbers, [4, 2, 2, 2, 2, 2]).map { padded($0, $1) }
        return texts[..<3].joined(separator: "-") + separator + texts[3...].joined(separator: ":")
    }
}
