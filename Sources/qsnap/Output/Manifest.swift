// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// What an image and its states are, in lines that `sha256sum -c` checks, with comments for what isn't a hash.
///
/// A comment begins an entry, and the hashes that belong to it follow. The older form has lines of a hash, a size and a
/// state.
struct Manifest {
    /// The image file, or one state.
    struct Entry {
        /// `container`, `active`, or `snapshot:`, the ID, a colon and the name.
        var key: String
        /// What isn't a hash, such as a size and a date, in the order of the manifest.
        var facts: [(name: String, value: String)] = []
        /// SHA-256 of the file or of the disk, in hexadecimal.
        var content: String?
        /// SHA-256 of the VM state; without one there is none.
        var vmState: String?

        static let container = "container"
        static let active = "active"

        var isContainer: Bool { key == Self.container }
        subscript(_ name: String) -> String? { facts.first { $0.name == name }?.value }
    }

    /// The container's, if the manifest has it, and the states' in its order.
    let entries: [Entry]
    /// Whether the manifest has only hashes and sizes of disks.
    let isOldForm: Bool

    var hasContainer: Bool { entries.contains { $0.isContainer } }

    static let title = "# qsnap-manifest 2"
}

extension Manifest.Entry {
    /// An entry for the active state, or for a snapshot.
    init(_ snapshot: Snapshot?, virtualSize: UInt64, content: String, vmState: String?) {
        self.content = content
        self.vmState = vmState
        facts = [("size", String(virtualSize))]
        guard let snapshot else {
            key = Self.active
            return
        }
        key = Self.key(of: snapshot)
        let nanoseconds = String(snapshot.date.nanoseconds)
        let zeros = String(repeating: "0", count: max(0, 9 - nanoseconds.count))
        facts += [
            ("date", "\(snapshot.date.seconds).\(zeros)\(nanoseconds)"),
            ("vm-state-size", String(snapshot.vmStateSize)), ("vm-clock-nsec", String(snapshot.vmClock)),
            ("icount", snapshot.icount.map { String($0) } ?? "none"),
        ]
    }

    /// The image file.
    init(container content: String, byteCount: UInt64) {
        key = Self.container
        self.content = content
        facts = [("size", String(byteCount))]
    }

    static func key(of snapshot: Snapshot) -> String {
        "snapshot:\(escaped(snapshot.idBytes)):\(escaped(snapshot.nameBytes))"
    }

    /// Bytes as one word that any program takes: all but plain characters are written as %XX; in a file's name also
    /// slashes.
    static func escaped(_ bytes: [UInt8], inFileName: Bool = false) -> String {
        var result = ""
        for byte in bytes {
            let isPlain =
                (0x21...0x7E).contains(byte) && byte != UInt8(ascii: "%") && byte != UInt8(ascii: ":")
                && !(inFileName && byte == UInt8(ascii: "/"))
            if isPlain {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                result += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }
}

/// Writes a manifest, line by line.
struct ManifestWriter {
    /// The image's path.
    let image: String
    /// How often an ID has come: the format allows it to be that of several snapshots.
    private var counts: [[UInt8]: Int] = [:]

    init(image: String) { self.image = image }

    /// The lines of one entry.
    ///
    /// The names are those of files that needn't be there: IMAGE for the image, IMAGE.raw for the active state,
    /// IMAGE.ID.raw for a snapshot's and IMAGE.ID.vmstate for its VM state.
    mutating func text(_ entry: Manifest.Entry, _ snapshot: Snapshot?) -> String {
        var path = image
        if let snapshot {
            let count = counts[snapshot.idBytes, default: 0] + 1
            counts[snapshot.idBytes] = count
            // No escaped ID holds this.
            path +=
                "." + Manifest.Entry.escaped(snapshot.idBytes, inFileName: true)
                + (count > 1 ? "%n\(count)" : "")
        }
        let facts = entry.facts.map { " \($0.name)=\($0.value)" }.joined()
        var text = "# \(entry.key)\(facts)\n"
        if let content = entry.content {
            text += Self.line(content, entry.isContainer ? path : path + ".raw")
        }
        if let vmState = entry.vmState { text += Self.line(vmState, path + ".vmstate") }
        return text
    }

    /// A line as `sha256sum` writes it: a backslash in front says that the name has escapes.
    private static func line(_ hash: String, _ path: String) -> String {
        var name = String.UnicodeScalarView()
        for scalar in path.unicodeScalars {
            switch scalar {
            case "\\": name.append(contentsOf: "\\\\".unicodeScalars)
            case "\n": name.append(contentsOf: "\\n".unicodeScalars)
            case "\r": name.append(contentsOf: "\\r".unicodeScalars)
            default: name.append(scalar)
            }
        }
        let isEscaped = name.count != path.unicodeScalars.count
        return "\(isEscaped ? "\\" : "")\(hash)  \(String(name))\n"
    }
}
