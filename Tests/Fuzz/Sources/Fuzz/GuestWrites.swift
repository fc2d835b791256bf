// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing

/// Writes, discards, resizes and looks at the differences, as the input chooses, and follows it in arrays of bytes.
///
/// Only what a failed operation was about to write may differ from before; no snapshot ever changes, and what was
/// written into the file is counted right.
func fuzzGuestWrites(_ patched: PatchedImage) {
    guard var image = try? Image(storage: InMemoryStorage(patched.bytes)) else { return }
    image.guestWriteOptions.memoryBudget = 1 << 20
    image.guestWriteOptions.cacheBudget = 1 << 12
    image.guestWriteOptions.bitmaps = .drop
    var expected = contents(of: image)
    var isChanged = false
    for (round, operation) in patched.operations.enumerated() {
        let target = GuestRange(operation, of: image.virtualSize)
        var isDone = true
        do throws(QCOW2Error) {
            try perform(operation, target, UInt8(round + 1), on: &image)
        } catch {
            isDone = false
        }
        if isDone, operation & 7 < 7 { isChanged = true }
        let now = contents(of: image)
        if expected != nil, now == nil, isDone { fail("operation \(operation): a state can't be read any more") }
        if let old = expected, let now { compare(old, now, operation, target, UInt8(round + 1), isDone) }
        expected = now
    }
    do throws(QCOW2Error) { try image.flush() } catch { fail("flushing failed: \(error)") }
    let bytes = image.close().bytes
    guard isChanged, bytes != patched.bytes else { return }
    guard let before = check(patched.bytes), let report = check(bytes) else { fail("the image can't be checked") }
    // Flags of entries that nobody wrote to stay as they were.
    let wrongFlagCount = ConsistencyCount(patched.bytes).findings.count { $0.contains("wrong copied flag") }
    expectConsistent(bytes, report, wrongFlagCount: wrongFlagCount, "writing")
    if report.count(of: .critical) > before.count(of: .critical) { fail("writing left: \(report.tallies)") }
    guard let again = try? Image(storage: InMemoryStorage(bytes)) else { fail("the image doesn't open any more") }
    if let expected, contents(of: again) != expected { fail("the file holds something else than was read before") }
}

/// A range of the disk that a byte chooses: from within a sector to half of the disk.
private struct GuestRange {
    var start: UInt64
    var count: UInt64

    init(_ operation: UInt8, of virtualSize: UInt64) {
        let size = min(virtualSize, 1 << 17)
        let place = UInt64(operation >> 3)
        start = size * place / 32
        count = min([3, 100, 512, 700, 4096, 5000, size / 2, size][Int(place * 5 % 8)], size - start)
    }

    var end: UInt64 { start + count }
}

private func perform(
    _ operation: UInt8, _ target: GuestRange, _ value: UInt8, on image: inout Image<InMemoryStorage>
) throws(QCOW2Error) {
    let start = GuestOffset(target.start)
    switch operation & 7 {
    case 0, 1: try image.write([UInt8](repeating: value, count: Int(target.count)), at: start)
    case 2: try image.writeZeros(at: start, count: target.count)
    case 3: try image.discard(at: start, count: target.count)
    case 4: try image.resize(to: UInt64(operation >> 3) * 1536, allowingDataLoss: true, bitmaps: .drop)
    case 5: try image.createSnapshot(named: "new", date: SnapshotDate(seconds: 1_700_000_000, nanoseconds: 0))
    case 6: try image.flush()
    default:
        try image.flush()
        try look(at: image)
    }
}

/// What was changed since the first snapshot, and what uses the file.
private func look(at image: borrowing Image<InMemoryStorage>) throws(QCOW2Error) {
    let usage = try image.usage()
    let file = usage.file
    let sum = file.dataByteCount + file.metadata.total + file.leakedByteCount + file.freeByteCount
    let clusterSize = UInt64(image.clusterSize)
    // Tables that overlap are counted twice.
    let isSound = try (image.check().worstSeverity ?? .notice) <= .leak
    if isSound, sum / clusterSize != (file.byteCount + clusterSize - 1) / clusterSize { fail("a wrong sum: \(file)") }
    guard let snapshot = image.snapshots.first else { return }
    _ = try image.byteCountFreed(byDeletingSnapshotsAt: [0])
    let states = contents(of: image)
    var position: UInt64 = 0
    let (old, new) = (states?[.snapshot(snapshot.idBytes)], states?[.active])
    var isEqual = true
    /// Whether both have the same bytes from where the last extent ended.
    func compare(to end: UInt64) {
        guard let old, let new else { return }
        let range = Int(position)..<Int(min(end, UInt64(min(old.count, new.count))))
        if !range.isEmpty, old[range] != new[range] { isEqual = false }
    }
    try image.diff(from: .snapshot(.id(snapshot.id))) { (extent) throws(QCOW2Error) in
        if extent.start.rawValue < position || extent.byteCount == 0 { fail("the extents aren't in order: \(extent)") }
        if extent.start.rawValue > position { compare(to: extent.start.rawValue) }
        position = extent.end.rawValue
    }
    if position < max(image.virtualSize, snapshot.diskSize), position < 1 << 20 { compare(to: 1 << 20) }
    if !isEqual { fail("the difference lacks a change") }
}

private func compare(
    _ before: [SnapshotState: [UInt8]], _ now: [SnapshotState: [UInt8]], _ operation: UInt8, _ target: GuestRange,
    _ value: UInt8, _ isDone: Bool
) {
    var before = before
    var now = now
    guard var old = before.removeValue(forKey: .active), let new = now.removeValue(forKey: .active) else { return }
    if isDone, operation & 7 == 5 {
        guard now.count == before.count + 1, now.values.contains(Array(new.prefix(new.count / 512 * 512))) else {
            fail("the new snapshot isn't what was active")
        }
        now = now.filter { before[$0.key] != nil }
    }
    if now != before { fail("operation \(operation) changed a snapshot") }
    let range = Int(target.start)..<Int(target.end)
    switch operation & 7 {
    case 0...3 where !isDone: old.replaceSubrange(range, with: new[range])
    case 0, 1: old.replaceSubrange(range, with: repeatElement(value, count: range.count))
    case 2: old.replaceSubrange(range, with: repeatElement(0, count: range.count))
    case 3: for index in range where new[index] == 0 { old[index] = 0 }
    case 4 where isDone:
        let size = Int(operation >> 3) * 1536
        // The guest sees whole sectors of a disk, as when a snapshot is taken.
        old = Array(old.prefix(min(size, old.count / 512 * 512)))
        old.append(contentsOf: repeatElement(0, count: size - old.count))
    default: break
    }
    if old != new { fail("operation \(operation) (done: \(isDone)) left other bytes on the disk") }
}
