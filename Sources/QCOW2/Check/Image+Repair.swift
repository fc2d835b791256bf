// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Checks the image and repairs what can be.
    ///
    /// Refcounts become the numbers of references, the copied flags of the active tree follow them, incomplete entries
    /// of the snapshot table are completed, and the dirty and corrupt bits are cleared if nothing else is left.
    /// Where something can't be followed that may refer to clusters, refcounts are only raised and nothing is freed.
    /// Everything else is left as it is, and found again by the check that follows.
    ///
    /// A snapshot whose entry can't be read stays in the table, so that nothing frees what it holds: neither this
    /// repair nor a later one. Dropped on request, its clusters are leaks from then on, which stay until leaks are
    /// repaired.
    ///
    /// Leaked clusters may be all that is left of a snapshot: of one whose deletion was never finished, or that the
    /// header doesn't count any more. So before anything is freed they are searched for tables that lead to data which
    /// no state has. Where there are any, nothing is written: ``RepairReport/remnants`` says what was found, and
    /// ``Inspection`` shows more of it.
    ///
    /// One commit with two flushes: a crash at any moment leaves the old state or the new one.
    ///
    /// - Parameters:
    ///   - scope: How much is repaired.
    ///   - isDryRun: Whether it is only found out what would be.
    ///   - droppingUnreadableSnapshots: Whether snapshots whose entries can't be read are given up; with the scope
    ///     ``RepairScope/all``.
    ///   - discardingRemnants: Whether leaked clusters are freed without being searched.
    ///   - checkOptions: How the checks before and after go about it.
    ///   - options: Whether freed clusters are given back to the file system, and memory and progress of the repair.
    ///   - found: Called with every finding of the check before.
    ///   - remaining: Called with every finding of the check after.
    /// - Returns: What was done, and both checks.
    /// - Throws: ``QCOW2Error`` with the code `readOnly`, `limitExceeded`, `unsupported` (an external data file),
    ///   `needsRepair` (leaks can't be freed while refcounts are too low), `inUse` (another program changed the file),
    ///   `cancelled` or `inputOutput`. The image is as before.
    @discardableResult
    public mutating func repair(
        _ scope: RepairScope, isDryRun: Bool = false, droppingUnreadableSnapshots: Bool = false,
        discardingRemnants: Bool = false, checking checkOptions: CheckOptions = CheckOptions(),
        options: WriteOptions = WriteOptions(),
        found: @escaping (Finding) -> Void = { _ in }, remaining: @escaping (Finding) -> Void = { _ in }
    ) throws(QCOW2Error) -> RepairReport {
        guard isDryRun || storage.isWritable else {
            throw QCOW2Error(.readOnly, "'\(storage.name)' was opened for reading only.")
        }
        // What is planned follows from what the check reads, and not from what was read when opening.
        let basis = try CommitBasis(reading: storage)
        var checker = try Checker(
            reading: storage, checkOptions, FindingSink(limitPerCode: checkOptions.findingLimitPerCode, found))
        try checker.run(reading: storage)
        var planner = RepairPlanner(
            checker, scope, options, dropsUnreadableSnapshots: droppingUnreadableSnapshots)
        guard !checker.report.tallies.isEmpty else { return planner.report }
        var work = WorkMeter(options.progress)
        if planner.freesLeaks, !discardingRemnants {
            let remnants = try checker.remnants(budget: options.memoryBudget, reading: storage, &work)
            guard remnants.isEmpty else {
                var report = RepairReport(before: checker.report)
                report.remnants = remnants
                return report
            }
        }
        let update = try planner.plan(reading: storage, &work)
        guard let update, !isDryRun else { return planner.report }
        try commit(
            update, from: basis, discarding: options.discardsFreedClusters && planner.knowsAllReferences, &work)
        var report = planner.report
        report.after = try check(checkOptions, remaining)
        return report
    }
}

extension SuspectImage where S: ~Copyable {
    /// Checks the image and repairs what can be, as ``Image/repair(_:isDryRun:droppingUnreadableSnapshots:discardingRemnants:checking:options:found:remaining:)``
    /// does.
    @discardableResult
    public mutating func repair(
        _ scope: RepairScope, isDryRun: Bool = false, droppingUnreadableSnapshots: Bool = false,
        discardingRemnants: Bool = false, checking checkOptions: CheckOptions = CheckOptions(),
        options: WriteOptions = WriteOptions(),
        found: @escaping (Finding) -> Void = { _ in }, remaining: @escaping (Finding) -> Void = { _ in }
    ) throws(QCOW2Error) -> RepairReport {
        try image.repair(
            scope, isDryRun: isDryRun, droppingUnreadableSnapshots: droppingUnreadableSnapshots,
            discardingRemnants: discardingRemnants, checking: checkOptions, options: options, found: found,
            remaining: remaining)
    }
}
