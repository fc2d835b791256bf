// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// A state in a manifest, in words without blanks.
struct ManifestState: Hashable {
    /// `active`, or `snapshot:`, the ID, a colon and the name, both with anything but plain characters as %XX.
    let text: String
    /// For people.
    let label: String

    static let active = ManifestState(text: "active", label: "active")

    init(_ snapshot: Snapshot) {
        text = "snapshot:\(Self.escaped(snapshot.idBytes)):\(Self.escaped(snapshot.nameBytes))"
        label = "\(snapshot.id) \(snapshot.name)"
    }

    init(text: String, label: String) {
        self.text = text
        self.label = label
    }

    private static func escaped(_ bytes: [UInt8]) -> String {
        var result = ""
        for byte in bytes {
            let isPlain = (0x21...0x7E).contains(byte) && byte != UInt8(ascii: "%") && byte != UInt8(ascii: ":")
            if isPlain {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                result += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }
}

/// The hashes of an image's states, a line each.
struct Manifest {
    struct Line: Hashable {
        /// SHA-256 in hexadecimal.
        let hash: String
        let byteCount: UInt64
        let state: ManifestState

        var text: String { "\(hash) \(byteCount) \(state.text)" }

        var json: JSON {
            .object([
                ("state", .string(state.label)), ("manifest-state", .string(state.text)),
                ("virtual-size", .number(byteCount)), ("sha256", .string(hash)),
            ])
        }
    }

    enum Outcome: String {
        case same, different, missing
        case new = "not in the manifest"
    }

    let lines: [Line]

    /// Reads a manifest that `--manifest` printed.
    init(readingFile path: String) throws {
        let text = try Console.readFile(path)
        lines = try text.split(separator: "\n").map { row in
            let words = row.split(separator: " ")
            guard words.count == 3, words[0].utf8.count == 64, let byteCount = UInt64(words[1]) else {
                throw Failure("'\(path)' is no manifest: its lines have a hash, a size and a state.")
            }
            let state = ManifestState(text: String(words[2]), label: String(words[2]))
            return Line(hash: words[0].lowercased(), byteCount: byteCount, state: state)
        }
        guard !lines.isEmpty else { throw Failure("'\(path)' is no manifest: it is empty.") }
    }

    /// What became of each state, in the manifest's order, and then the new ones.
    ///
    /// Snapshots may share an ID and a name; those are compared in their order.
    func compared(with found: [Line]) -> [(line: Line, outcome: Outcome)] {
        var rest = found
        var result: [(line: Line, outcome: Outcome)] = []
        for line in lines {
            guard let index = rest.firstIndex(where: { $0.state.text == line.state.text }) else {
                result.append((line, .missing))
                continue
            }
            let actual = rest.remove(at: index)
            let isSame = actual.hash == line.hash && actual.byteCount == line.byteCount
            result.append((actual, isSame ? .same : .different))
        }
        return result + rest.map { ($0, .new) }
    }
}
