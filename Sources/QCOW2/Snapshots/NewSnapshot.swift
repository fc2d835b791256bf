// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which names a new snapshot may have.
public enum NamePolicy: Hashable, Sendable {
    /// Names that every implementation shows, finds and deletes: 1 to 255 bytes of UTF-8 without control characters,
    /// unlike any other snapshot's name.
    case strict
    /// Whatever QEMU's programs take: any bytes, none at all, names that exist already; cut off after 255 bytes.
    ///
    /// For replacing such a program in scripts; a name of one's own choice is better held to ``strict``.
    case anyBytes
}

/// What a snapshot that is to be created says about itself.
public struct NewSnapshot: Hashable, Sendable {
    /// The name's bytes, which ``namePolicy`` checks.
    public var nameBytes: [UInt8]
    /// When the snapshot is said to have been made.
    public var date: SnapshotDate
    /// How many instructions the guest is said to have executed; `nil` for not recorded.
    public var icount: UInt64?
    /// Which names are allowed.
    public var namePolicy: NamePolicy

    /// A snapshot with a name of 1 to 255 bytes without control characters, unlike any other snapshot's name.
    public init(named name: String, date: SnapshotDate = .now) {
        self.init(nameBytes: Array(name.utf8), date: date)
    }

    /// A snapshot with any name that a policy allows.
    public init(
        nameBytes: [UInt8], date: SnapshotDate = .now, icount: UInt64? = nil, namePolicy: NamePolicy = .strict
    ) {
        self.nameBytes = nameBytes
        self.date = date
        self.icount = icount
        self.namePolicy = namePolicy
    }
}

extension SnapshotTableEntry {
    /// The longest name that other implementations can delete again, in bytes.
    static let maximumNewNameByteCount = 255

    /// The bytes of a new name, if it is one that every implementation shows, finds and deletes.
    ///
    /// - Throws: ``QCOW2Error/Code/invalidName`` for an empty name, one of more than 255 bytes, one that isn't UTF-8, or
    ///   one with control characters; ``QCOW2Error/Code/nameInUse`` for one that an entry of `others` has.
    static func checkedName(
        _ bytes: [UInt8], _ policy: NamePolicy = .strict, among others: some Sequence<SnapshotTableEntry>
    ) throws(QCOW2Error) -> [UInt8] {
        if policy == .anyBytes { return Array(bytes.prefix(maximumNewNameByteCount)) }
        guard !bytes.isEmpty else { throw QCOW2Error(.invalidName, "A snapshot's name can't be empty.") }
        guard bytes.count <= maximumNewNameByteCount else {
            throw QCOW2Error(
                .invalidName,
                "A snapshot's name can't be longer than \(maximumNewNameByteCount) bytes; this one has \(bytes.count).")
        }
        guard let name = String(validating: bytes, as: UTF8.self) else {
            throw QCOW2Error(.invalidName, "A snapshot's name must be UTF-8; '\(escaped(bytes))' isn't.")
        }
        guard !name.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
            throw QCOW2Error(.invalidName, "A snapshot's name can't contain control characters: '\(escaped(bytes))'.")
        }
        guard !others.contains(where: { $0.name == bytes }) else {
            throw QCOW2Error(.nameInUse, "There is already a snapshot named '\(escaped(bytes))'.")
        }
        return bytes
    }

    /// The ID of the next snapshot: one more than the largest number that an ID starts with, as QEMU counts.
    ///
    /// Where that would overflow, QEMU starts over at 0 and repeats IDs; here the lowest unused number is taken.
    static func nextID(after entries: [SnapshotTableEntry]) -> [UInt8] {
        let largest = entries.map { leadingNumber(of: $0.id) }.max() ?? 0
        if largest < .max { return Array(String(largest + 1).utf8) }
        let used = Set(entries.map(\.id))
        var candidate: UInt64 = 1
        while used.contains(Array(String(candidate).utf8)) { candidate += 1 }
        return Array(String(candidate).utf8)
    }

    /// The number at the start of an ID, as C's `strtoul` reads it: leading blanks and a sign are allowed, a minus
    /// sign negates modulo 2^64, and what doesn't fit is the largest number.
    private static func leadingNumber(of id: [UInt8]) -> UInt64 {
        let blanks: Set<UInt8> = [0x20, 0x09, 0x0A, 0x0B, 0x0C, 0x0D]
        var rest = id.drop { blanks.contains($0) }
        let isNegative = rest.first == UInt8(ascii: "-")
        if isNegative || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
        var value: UInt64 = 0
        for digit in rest.prefix(while: { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) {
            let (product, tooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow) = product.addingReportingOverflow(UInt64(digit - UInt8(ascii: "0")))
            if tooLarge || overflow { return .max }
            value = sum
        }
        return isNegative ? 0 &- value : value
    }
}

extension Proposal {
    /// Adds a snapshot of the active state as it is before the operation.
    ///
    /// - Throws: What ``SnapshotTableEntry/checkedName(_:_:among:)`` throws, and ``QCOW2Error/Code/limitExceeded`` when
    ///   there are as many snapshots as the format's readers allow.
    mutating func addSnapshot(_ new: NewSnapshot, of state: ImageState) throws(QCOW2Error) {
        let bytes = try SnapshotTableEntry.checkedName(
            new.nameBytes, new.namePolicy, among: snapshots.lazy.map(\.entry))
        guard snapshots.count < Header.maximumSnapshotCount else {
            throw QCOW2Error(
                .limitExceeded, "The image has \(snapshots.count) snapshots, the most that the format's readers allow.")
        }
        // The guest sees whole sectors, whatever the header says.
        var entry = SnapshotTableEntry(
            id: SnapshotTableEntry.nextID(after: snapshots.map(\.entry)), name: bytes,
            seconds: new.date.seconds, nanoseconds: new.date.nanoseconds,
            diskSize: state.header.size & ~(ImageGeometry.sectorSize - 1))
        entry.icount = new.icount
        snapshots.append(Proposal.PlannedSnapshot(entry: entry, tree: ImageState.activeTree, isNew: true))
    }
}
