// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Prints changed extents as they are found, however many there are.
struct DiffOutput {
    private let isJSON: Bool
    private let heading: [(String, JSON)]
    private var text = ""
    private var count = 0

    init(isJSON: Bool, heading: [(String, JSON)]) {
        self.isJSON = isJSON
        self.heading = heading
    }

    mutating func add(_ extent: ChangedExtent) throws(Failure) {
        begin()
        if isJSON {
            let members: [(String, JSON)] = [
                ("start", .number(extent.start.rawValue)), ("length", .number(extent.byteCount)),
                ("kind", .string(extent.kind.rawValue)),
            ]
            text += (count == 0 ? "\n    " : ",\n    ") + JSON.object(members).text(indent: "    ")
        } else {
            text += line("\(extent.start.rawValue)", "\(extent.byteCount)", extent.kind.rawValue)
        }
        count += 1
        guard text.utf8.count >= 1 << 16 else { return }
        try Console.write(text)
        text = ""
    }

    /// What is printed ahead of the first extent.
    private mutating func begin() {
        guard count == 0 else { return }
        if isJSON {
            text = "{\n" + heading.map { "  \"\($0.0)\": \($0.1.text(indent: "  ")),\n" }.joined() + "  \"extents\": ["
        } else {
            text = line("START", "LENGTH", "KIND")
        }
    }

    /// Columns of a fixed width: no disk's numbers are longer.
    private func line(_ start: String, _ length: String, _ kind: String) -> String {
        func column(_ text: String) -> String { String(repeating: " ", count: max(0, 19 - text.count)) + text }
        return "\(column(start))  \(column(length))  \(kind)\n"
    }

    /// Prints the sums.
    mutating func finish(_ difference: DiskDifference, _ sentence: String) throws(Failure) {
        if isJSON {
            begin()
            text += count == 0 ? "]" : "\n  ]"
            text += difference.jsonMembers.map { ",\n  \"\($0.0)\": \($0.1.text())" }.joined() + "\n}\n"
        } else {
            text += (count == 0 ? "" : "\n") + printable(sentence) + "\n"
        }
        try Console.write(text)
    }
}

extension DiskDifference {
    /// The documented keys.
    var jsonMembers: [(String, JSON)] {
        [
            ("old-size", .number(oldSize)), ("new-size", .number(newSize)),
            ("changed-bytes", .number(changedByteCount)), ("extent-count", .number(extentCount)),
        ]
    }
}
