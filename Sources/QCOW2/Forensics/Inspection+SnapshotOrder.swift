// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What the snapshots say about each other, and about those that are gone.
extension Inspection {
    /// Finds IDs that were given and aren't there any more.
    ///
    /// QEMU's new ID is one more than the largest there is. So a gap speaks for a deletion; but whoever deletes the
    /// newest snapshots leaves no gap, and other programs count in other ways.
    mutating func inspectNumbers() {
        var byName: [[UInt8]: Int] = [:]
        for record in snapshots {
            let first = byName[record.snapshot.nameBytes]
            guard let first else {
                byName[record.snapshot.nameBytes] = record.index
                continue
            }
            report(
                .snapshotNameRepeated, "Snapshot \(record.index) has the same name as snapshot \(first).",
                at: record.offset, in: "snapshot table", index: UInt64(record.index))
        }
        let numbers = Set(snapshots.compactMap { decimal($0.snapshot.idBytes) }).filter { $0 > 0 }.sorted()
        guard let largest = numbers.last else { return }
        let missingCount = largest - UInt64(numbers.count)
        guard missingCount > 0 else { return }
        var gaps: [String] = []
        var previous: UInt64 = 0
        for number in numbers {
            // Safe: the numbers rise.
            if number - previous > 1, gaps.count < 9 {
                let (first, last) = (previous + 1, number - 1)
                gaps.append(first == last ? "\(first)" : "\(first) to \(last)")
            }
            previous = number
        }
        let list = gaps.prefix(8).joined(separator: ", ") + (gaps.count > 8 ? " and more" : "")
        report(
            .snapshotIDMissing,
            "\(missingCount) snapshot IDs below \(largest) are missing: \(list). Where a program gave the IDs that "
                + "counts as QEMU does, those snapshots were deleted.",
            at: snapshots.first?.offset, in: "snapshot table", .probable,
            because: "programs that count in another way leave gaps by themselves")
    }

    /// Finds snapshots that are said to be older than the one before them in the table.
    mutating func inspectOrder() {
        for (earlier, later) in zip(snapshots, snapshots.dropFirst()) {
            let (first, second) = (earlier.snapshot.date, later.snapshot.date)
            guard (second.seconds, second.nanoseconds) < (first.seconds, first.nanoseconds) else { continue }
            report(
                .snapshotDatesUnordered,
                "Snapshot \(later.index) is said to be older than snapshot \(earlier.index), which was there before it: "
                    + "the clock was set back, or a date was changed.", at: later.offset, in: "snapshot table",
                index: UInt64(later.index))
        }
    }
}
