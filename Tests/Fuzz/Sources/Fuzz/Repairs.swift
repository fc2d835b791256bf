// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing

/// Repairs an image: what could be read before stays as it was, and nothing gets worse.
func fuzzRepair(_ patched: PatchedImage) {
    guard let before = check(patched.bytes),
        var suspect = try? SuspectImage(storage: InMemoryStorage(patched.bytes))
    else { return }
    let scope: RepairScope = patched.operations[0] & 1 == 0 ? .all : .leaks
    let isDropping = scope == .all && patched.operations[0] & 12 == 4
    var options = WriteOptions()
    options.discardsFreedClusters = patched.operations[0] & 2 == 0
    options.memoryBudget = 1 << 20
    let report: RepairReport
    do throws(QCOW2Error) {
        report = try suspect.repair(scope, droppingUnreadableSnapshots: isDropping, options: options)
    } catch {
        if suspect.close().bytes != patched.bytes { fail("'\(error)' was thrown, but the file changed") }
        if error.code == .corrupt || error.code == .inputOutput { fail("repairing failed: \(error)") }
        return
    }
    let bytes = suspect.close().bytes
    // A refcount table with garbage in it must not make the file much larger than what is in it.
    if bytes.count > 2 * patched.bytes.count + 65 << 20 { fail("the file grew to \(bytes.count) bytes") }
    if !report.hasChanges, bytes != patched.bytes { fail("nothing was repaired, but the file changed") }
    if !before.isComplete, report.loweredRefcountCount > 0 { fail("freed what may be in use") }
    if !before.isComplete, !isDropping { fuzzSecondRepair(bytes) }
    guard let after = check(bytes) else { fail("the image can't be checked any more") }
    if after.count(of: .critical) > before.count(of: .critical) { fail("repairing made it worse: \(after.tallies)") }
    for tally in after.tallies where tally.code.rawValue == "refcount-too-low" {
        if before.count(of: tally.code) == 0 { fail("a refcount is too low after repairing") }
    }
    if (after.worstSeverity ?? .notice) == .notice {
        let findings = ConsistencyCount(bytes).findings
        if !findings.isEmpty { fail("the repaired image isn't clean: \(findings.prefix(5))") }
    }
    guard let image = try? Image(storage: InMemoryStorage(patched.bytes, isWritable: false)) else { return }
    guard let repaired = try? Image(storage: InMemoryStorage(bytes, isWritable: false)) else {
        fail("the image doesn't open any more")
    }
    if let old = contents(of: image), contents(of: repaired) != old { fail("repairing changed what is on a disk") }
}

/// Repairs an image again, of which not all could be read: nothing may be freed then, either.
private func fuzzSecondRepair(_ bytes: [UInt8]) {
    for scope in RepairScope.allCases {
        guard var suspect = try? SuspectImage(storage: InMemoryStorage(bytes)),
            let report = try? suspect.repair(scope)
        else { continue }
        guard report.loweredRefcountCount == 0 else { fail("the second repair freed what may be in use") }
    }
}
