// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing

/// Carries out the operations that the input chooses.
///
/// Each must throw and leave the bytes as they were, or leave an image whose references are counted right, in which every
/// state that it doesn't touch reads as before.
func fuzzVerbs(_ patched: PatchedImage) {
    var bytes = patched.bytes
    for operation in patched.operations {
        guard var image = try? Image(storage: InMemoryStorage(bytes)) else { return }
        let before = contents(of: image)
        var options = WriteOptions()
        options.discardsFreedClusters = operation & 0x80 == 0
        options.memoryBudget = 1 << 20
        let change: StateChange?
        do throws(QCOW2Error) {
            change = try perform(operation, on: &image, options)
        } catch {
            let storage = image.close()
            if storage.bytes != bytes { fail("'\(error)' was thrown, but the file changed") }
            continue
        }
        let storage = image.close()
        // There was nothing to do it with.
        guard let change else { continue }
        let old = bytes
        bytes = storage.bytes
        guard let report = check(bytes) else { fail("the image can't be checked any more") }
        expectConsistent(bytes, report, wrongFlagCount: 0, "operation \(operation)")
        for tally in report.tallies where tally.severity > .leak {
            // What was wrong before may stay; nothing may be added.
            guard check(old).map({ $0.count(of: tally.code) >= tally.count }) ?? false else {
                fail("operation \(operation) left: \(report.tallies)")
            }
        }
        guard let after = try? Image(storage: InMemoryStorage(bytes)) else { fail("the image doesn't open any more") }
        if let before { compare(before, contents(of: after), change, operation) }
    }
}

/// Counts references independently of the library; leaks that were there before may stay.
///
/// So may a copied flag without a cluster, which means nothing, and as many flags that contradict a refcount as there
/// were before.
func expectConsistent(_ bytes: [UInt8], _ report: CheckReport, wrongFlagCount: Int, _ what: String) {
    let findings = ConsistencyCount(bytes).findings.filter { !$0.contains("leaked") }
    let flagCount = findings.count { $0.contains("wrong copied flag") }
    let mostFlags = wrongFlagCount + Int(clamping: report.count(of: Finding.Code(rawValue: "copied-flag-unallocated")))
    if flagCount < findings.count || flagCount > mostFlags { fail("\(what) left: \(findings.prefix(5))") }
}

/// What an operation does to the states of a disk.
enum StateChange {
    case nothing
    case created([UInt8])
    case applied([UInt8])
    case deleted([[UInt8]])
}

/// Carries out an operation; `nil` when there is no such snapshot.
private func perform(
    _ operation: UInt8, on image: inout Image<InMemoryStorage>, _ options: WriteOptions
) throws(QCOW2Error) -> StateChange? {
    let snapshots = image.snapshots
    let index = Int(operation >> 3 & 7)
    let date = SnapshotDate(seconds: 1_700_000_000, nanoseconds: 0)
    switch operation & 7 {
    case 0, 1: return .created(try image.createSnapshot(named: "new", date: date, options: options).idBytes)
    case 2, 3:
        guard index < snapshots.count else { return nil }
        try image.applySnapshot(.id(snapshots[index].id), options: options)
        return .applied(snapshots[index].idBytes)
    case 4:
        guard index < snapshots.count else { return nil }
        try image.deleteSnapshots(at: [index], options: options)
        return .deleted([snapshots[index].idBytes])
    case 5:
        guard !snapshots.isEmpty else { return nil }
        try image.deleteSnapshots(at: snapshots.indices, options: options)
        return .deleted(snapshots.map(\.idBytes))
    default:
        guard index < snapshots.count else { return nil }
        try image.renameSnapshot(.id(snapshots[index].id), to: "renamed", options: options)
        return .nothing
    }
}

private func compare(
    _ before: [SnapshotState: [UInt8]], _ after: [SnapshotState: [UInt8]]?, _ change: StateChange, _ operation: UInt8
) {
    var expected = before
    switch change {
    case .nothing: break
    case .created(let id): expected[.snapshot(id)] = before[.active]
    case .applied(let id): expected[.active] = before[.snapshot(id)]
    case .deleted(let ids): for id in ids { expected[.snapshot(id)] = nil }
    }
    // A disk that isn't whole sectors is cut to them in its snapshot.
    if case .created(let id) = change, let content = expected[.snapshot(id)] {
        expected[.snapshot(id)] = Array(content.prefix(content.count / 512 * 512))
    }
    guard let after else { fail("operation \(operation): a state can't be read any more") }
    // And keeps its size when such a snapshot is applied.
    if case .applied = change, let content = expected[.active], let now = after[.active],
        now.count > content.count, now.count / 512 * 512 == content.count, now.starts(with: content)
    {
        expected[.active] = now
    }
    if after != expected { fail("operation \(operation) changed a state that it shouldn't have") }
}
