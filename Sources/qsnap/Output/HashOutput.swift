// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// Prints hashes as they are made into text: there may be many, with long names.
struct HashOutput {
    enum Form {
        case plain, manifest, json
    }

    private let image: String
    private let form: Form
    private var writer: ManifestWriter
    private var text: String
    private var container: JSON?
    private var isEmpty = true

    init(image: String, form: Form) {
        self.image = image
        self.form = form
        writer = ManifestWriter(image: image)
        text = form == .manifest ? Manifest.title + "\n" : ""
    }

    mutating func add(_ entry: Manifest.Entry, _ snapshot: Snapshot?) throws(Failure) {
        switch form {
        case .plain: text += "\(entry.content ?? "")  \(entry.label(snapshot))\n"
        case .manifest: text += writer.text(entry, snapshot)
        case .json where entry.isContainer: container = entry.json(snapshot)
        case .json:
            text += isEmpty ? start : ","
            text += "\n    " + entry.json(snapshot).text(indent: "    ")
            isEmpty = false
        }
        if text.utf8.count >= 1 << 16 { try flush() }
    }

    mutating func finish() throws(Failure) {
        if form == .json { text += "\n  ]\n}\n" }
        try flush()
    }

    /// The object's start, with what precedes the states.
    private var start: String {
        let members = [("image", JSON.string(image))] + (container.map { [("container", $0)] } ?? [])
        return JSON.object(members).text().dropLast(2) + ",\n  \"states\": ["
    }

    private mutating func flush() throws(Failure) {
        try Console.write(text)
        text = ""
    }
}

extension Manifest.Entry {
    /// What people call the state.
    fileprivate func label(_ snapshot: Snapshot?) -> String {
        snapshot.map { "\($0.shortID) \($0.shortName)" } ?? key
    }

    /// The documented keys.
    fileprivate func json(_ snapshot: Snapshot?) -> JSON {
        if isContainer {
            return .object([("size", .optional(self["size"].flatMap { UInt64($0) })), ("sha256", .optional(content))])
        }
        let label = snapshot.map { "\($0.id) \($0.name)" } ?? key
        var members: [(String, JSON)] = [
            ("state", .string(label)), ("manifest-state", .string(key)),
            ("virtual-size", .optional(self["size"].flatMap { UInt64($0) })), ("sha256", .optional(content)),
        ]
        if let vmState { members.append(("vm-state-sha256", .string(vmState))) }
        return .object(members)
    }
}

extension ManifestComparison.Row {
    /// The state's name as people know it, out of the manifest's word.
    private var label: [UInt8] {
        guard key.utf8.starts(with: "snapshot:".utf8) else {
            return Array((isContainer ? "image file" : key).utf8)
        }
        var bytes: [UInt8] = []
        var rest = key.utf8.dropFirst(9)
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte == UInt8(ascii: ":") ? UInt8(ascii: " ") : byte)
            }
        }
        return bytes
    }

    var text: String {
        "\(cell(label)): \(outcome.rawValue)" + (differences.isEmpty ? "" : " (\(differences.joined(separator: ", ")))")
    }

    /// The documented keys.
    var json: JSON {
        .object([
            ("state", .string(String(decoding: label, as: UTF8.self))), ("manifest-state", .string(key)),
            ("outcome", .string(outcome.rawValue)), ("differences", .array(differences.map { .string($0) })),
        ])
    }
}
