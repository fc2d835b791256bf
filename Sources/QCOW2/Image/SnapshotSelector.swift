// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Says which snapshot is meant.
///
/// IDs and names are bytes: parsed, compared and looked up as such. Text that Unicode calls equal, such as an accented
/// letter in one character or in two, means different snapshots; so does text that merges with what precedes it.
public struct SnapshotSelector: Hashable, Sendable {
    /// What the bytes are compared with.
    public enum Key: Hashable, Sendable {
        case id, name
        /// An ID or a name, whichever there is; ambiguous when both exist and belong to different snapshots.
        case idOrName
    }

    /// What the bytes are compared with.
    public let key: Key
    /// The ID or the name; any bytes, as the format allows.
    public let bytes: [UInt8]

    /// A selector of bytes that needn't be text.
    public init(_ key: Key, bytes: some Sequence<UInt8>) {
        self.key = key
        self.bytes = Array(bytes)
    }

    /// The snapshot with an ID.
    public static func id(_ text: String) -> Self { Self(.id, bytes: text.utf8) }

    /// The snapshot with a name.
    public static func name(_ text: String) -> Self { Self(.name, bytes: text.utf8) }

    /// The snapshot with an ID or a name, whichever there is.
    public static func idOrName(_ text: String) -> Self { Self(.idOrName, bytes: text.utf8) }

    /// Reads `id:TEXT`, `name:TEXT`, or any other text as an ID or a name.
    public init(parsing text: String) { self.init(parsing: text.utf8) }

    /// Reads `id:`, `name:` and the bytes behind it, or any other bytes as an ID or a name.
    public init(parsing word: some Collection<UInt8>) {
        if word.starts(with: "id:".utf8) {
            self.init(.id, bytes: word.dropFirst(3))
        } else if word.starts(with: "name:".utf8) {
            self.init(.name, bytes: word.dropFirst(5))
        } else {
            self.init(.idOrName, bytes: word)
        }
    }

    func matches(_ entry: SnapshotTableEntry) -> Bool {
        switch key {
        case .id: entry.id == bytes
        case .name: entry.name == bytes
        case .idOrName: entry.id == bytes || entry.name == bytes
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
                .noSuchSnapshot, "There is no snapshot '\(escaped(selector.bytes))' in '\(storage.name)'.")
        }
        guard candidates.count == 1 else {
            let list = candidates.map { "id:\(escaped(entries[$0].id)) (name '\(escaped(entries[$0].name))')" }
            throw QCOW2Error(
                .ambiguousSnapshot,
                "'\(escaped(selector.bytes))' could be \(list.joined(separator: " or ")) in '\(storage.name)'; "
                    + "use id: or name: to say which.")
        }
        return index
    }
}
