// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Manifest {
    /// Reads a manifest that `--manifest` printed, of today's form or of the older one.
    init(readingFile path: String) throws(Failure) {
        let text = try Console.readFile(path)
        let rows = text.utf8.split(separator: UInt8(ascii: "\n")).map { row in
            row.last == UInt8(ascii: "\r") ? row.dropLast() : row
        }
        guard let first = rows.first(where: { !$0.isEmpty }) else {
            throw Failure("'\(path)' is no manifest: it is empty.")
        }
        isOldForm = first.first != UInt8(ascii: "#")
        if isOldForm {
            entries = try rows.map { row throws(Failure) in try Self.oldEntry(row, path) }
        } else {
            guard first.elementsEqual(Self.title.utf8) else {
                throw Failure("'\(path)' is no manifest that this version reads: it doesn't begin '\(Self.title)'.")
            }
            entries = try Self.entries(rows, path)
        }
        guard !entries.isEmpty else { throw Failure("'\(path)' is no manifest: it names no state.") }
    }

    private typealias Row = Substring.UTF8View

    private static func words(_ row: Row) -> [String] {
        row.split(separator: UInt8(ascii: " ")).compactMap { String($0) }
    }

    private static func oldEntry(_ row: Row, _ path: String) throws(Failure) -> Entry {
        let words = words(row)
        guard words.count == 3, isHash(words[0]), UInt64(words[1]) != nil else {
            throw Failure("'\(path)' is no manifest: its lines have a hash, a size and a state.")
        }
        return Entry(key: words[2], facts: [("size", words[1])], content: words[0].lowercased())
    }

    private static func isHash(_ word: String) -> Bool {
        word.utf8.count == 64 && word.utf8.allSatisfy { Character(Unicode.Scalar($0)).isHexDigit }
    }

    /// Entries that begin with a comment; other comments are passed over.
    private static func entries(_ rows: [Row], _ path: String) throws(Failure) -> [Entry] {
        var entries: [Entry] = []
        for row in rows.drop(while: \.isEmpty).dropFirst() where !row.isEmpty {
            if row.first == UInt8(ascii: "#") {
                let words = words(row.dropFirst())
                guard let key = words.first,
                    key == Entry.container || key == Entry.active || key.utf8.starts(with: "snapshot:".utf8)
                else { continue }
                var entry = Entry(key: key)
                for word in words.dropFirst() {
                    let parts = word.utf8.split(separator: UInt8(ascii: "="), maxSplits: 1)
                    guard parts.count == 2 else { continue }
                    entry.facts.append((String(Substring(parts[0])), String(Substring(parts[1]))))
                }
                entries.append(entry)
                continue
            }
            let isEscaped = row.first == UInt8(ascii: "\\")
            let hash = String(Substring(row.dropFirst(isEscaped ? 1 : 0).prefix(64)))
            let last = entries.count - 1
            guard isHash(hash), last >= 0 else {
                throw Failure("'\(path)' is no manifest: a line is neither a comment nor the hash of a state.")
            }
            if row.suffix(8).elementsEqual(".vmstate".utf8), entries[last].content != nil {
                entries[last].vmState = hash.lowercased()
            } else {
                entries[last].content = hash.lowercased()
            }
        }
        return entries
    }
}
