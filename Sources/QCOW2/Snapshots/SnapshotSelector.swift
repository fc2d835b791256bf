// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Says which snapshot is meant.
///
/// IDs and names are compared byte by byte.
public enum SnapshotSelector: Hashable, Sendable {
    case id(String)
    case name(String)
    /// An ID or a name, whichever there is; ambiguous when both exist and belong to different snapshots.
    case idOrName(String)

    /// Reads `id:TEXT`, `name:TEXT`, or any other text as an ID or a name.
    public init(parsing text: String) {
        if text.utf8.starts(with: "id:".utf8) {
            self = .id(String(text.dropFirst(3)))
        } else if text.utf8.starts(with: "name:".utf8) {
            self = .name(String(text.dropFirst(5)))
        } else {
            self = .idOrName(text)
        }
    }

    var text: String {
        switch self {
        case .id(let text), .name(let text), .idOrName(let text): text
        }
    }

    func matches(_ entry: SnapshotTableEntry) -> Bool {
        switch self {
        case .id(let id): entry.id.elementsEqual(id.utf8)
        case .name(let name): entry.name.elementsEqual(name.utf8)
        case .idOrName(let text): entry.id.elementsEqual(text.utf8) || entry.name.elementsEqual(text.utf8)
        }
    }
}

extension Image where S: ~Copyable {
    /// The snapshot that a selector means.
    ///
    /// Costs O(snapshots).
    ///
    /// - Throws: ``QCOW2Error/Code/noSuchSnapshot``, or ``QCOW2Error/Code/ambiguousSnapshot`` with the candidates.
    public func snapshot(_ selector: SnapshotSelector) throws(QCOW2Error) -> Snapshot {
        Snapshot(entries[try index(of: selector)], imageSize: header.size)
    }

    /// The index in ``snapshots`` of the one that a selector means.
    ///
    /// Costs O(snapshots).
    ///
    /// - Throws: ``QCOW2Error/Code/noSuchSnapshot``, or ``QCOW2Error/Code/ambiguousSnapshot`` with the candidates.
    public func index(of selector: SnapshotSelector) throws(QCOW2Error) -> Int {
        let candidates = entries.indices.filter { selector.matches(entries[$0]) }
        guard let index = candidates.first else {
            throw QCOW2Error(
                .noSuchSnapshot, "There is no snapshot '\(escaped(selector.text.utf8))' in '\(storage.name)'.")
        }
        guard candidates.count == 1 else {
            let list = candidates.map { "id:\(escaped(entries[$0].id)) (name '\(escaped(entries[$0].name))')" }
            throw QCOW2Error(
                .ambiguousSnapshot,
                "'\(escaped(selector.text.utf8))' could be \(list.joined(separator: " or ")) in '\(storage.name)'; "
                    + "use id: or name: to say which.")
        }
        return index
    }
}

/// Text from an image, fit for one line of a message: control characters and invalid bytes are escaped.
func escaped(_ bytes: some Sequence<UInt8>) -> String {
    var result = ""
    for scalar in String(decoding: Array(bytes), as: UTF8.self).unicodeScalars {
        if scalar.properties.generalCategory == .control {
            result += "\\u{\(String(scalar.value, radix: 16))}"
        } else {
            result.unicodeScalars.append(scalar)
        }
    }
    return result
}
