// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension SnapshotTableEntry {
    /// The longest name that other implementations can delete again, in bytes.
    static let maximumNewNameByteCount = 255

    /// The bytes of a new name, if it is one that every implementation shows, finds and deletes.
    ///
    /// - Throws: ``QCOW2Error/Code/invalidName`` for an empty name, one of more than 255 bytes, or one with control
    ///   characters; ``QCOW2Error/Code/nameInUse`` for one that an entry of `others` has.
    static func checkedName(_ name: String, among others: some Sequence<SnapshotTableEntry>) throws(QCOW2Error)
        -> [UInt8]
    {
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty else { throw QCOW2Error(.invalidName, "A snapshot's name can't be empty.") }
        guard bytes.count <= maximumNewNameByteCount else {
            throw QCOW2Error(
                .invalidName,
                "A snapshot's name can't be longer than \(maximumNewNameByteCount) bytes; this one has \(bytes.count).")
        }
        guard !name.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
            throw QCOW2Error(.invalidName, "A snapshot's name can't contain control characters: '\(escaped(bytes))'.")
        }
        guard !others.contains(where: { $0.name == bytes }) else {
            throw QCOW2Error(.nameInUse, "There is already a snapshot named '\(name)'.")
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
    /// - Throws: What ``SnapshotTableEntry/checkedName(_:among:)`` throws, and ``QCOW2Error/Code/limitExceeded`` when
    ///   there are as many snapshots as the format's readers allow.
    mutating func addSnapshot(named name: String, date: SnapshotDate, of state: ImageState) throws(QCOW2Error) {
        let bytes = try SnapshotTableEntry.checkedName(name, among: snapshots.lazy.map(\.entry))
        guard snapshots.count < Header.maximumSnapshotCount else {
            throw QCOW2Error(
                .limitExceeded, "The image has \(snapshots.count) snapshots, the most that the format's readers allow.")
        }
        // The guest sees whole sectors, whatever the header says.
        let entry = SnapshotTableEntry(
            id: SnapshotTableEntry.nextID(after: snapshots.map(\.entry)), name: bytes,
            seconds: date.seconds, nanoseconds: date.nanoseconds,
            diskSize: state.header.size & ~(ImageGeometry.sectorSize - 1))
        snapshots.append(Snapshot(entry: entry, tree: ImageState.activeTree, isNew: true))
    }
}
