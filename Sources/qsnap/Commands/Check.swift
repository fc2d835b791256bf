// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "check",
            abstract: "Check an image, and repair it: all metadata of the active state and of every snapshot.",
            discussion: """
                Needs neither the image's backing file nor an encryption key, and opens it for reading only, except \
                to repair it. Exit status: 0 clean, after the repair if there was one; 1 failed; 2 corruption found; \
                3 only leaks found.

                A repair is one step: an interrupted one leaves the image as it was, or repaired. What can't be \
                repaired is said again, and left as it is. Where leaked clusters hold what is left of a snapshot, \
                nothing is repaired, unless it may be discarded.
                """)

        @Argument(help: "The qcow2 image file.", completion: .file())
        var image: String

        @Flag(help: "Print JSON.")
        var json = false

        @Flag(help: "Also decompress every compressed cluster.")
        var deep = false

        @Flag(name: [.long, .customShort("U")], help: "Read the image even while another process writes to it.")
        var forceShare = false

        @Option(
            help: ArgumentHelp(
                "Repair 'leaks': free what nothing refers to; or 'all': also refcounts, flags, incomplete snapshots.",
                valueName: "what"))
        var repair: RepairChoice?

        @Flag(name: [.long, .customShort("n")], help: "With --repair: say what would change, and change nothing.")
        var dryRun = false

        @Flag(
            help: """
                With --repair all: drop snapshots whose entries can't be read, for good; what only they hold is \
                leaked then.
                """)
        var dropUnreadableSnapshots = false

        @Flag(
            help: """
                With --repair: free leaked clusters without searching them for what is left of snapshots, for good.
                """)
        var discardRemnants = false

        @Flag(inversion: .prefixedNo, help: "Give the space of freed clusters back to the file system at once.")
        var discard = true

        @Flag(
            help: """
                With --repair: write even where the file system has no locks: nothing then keeps a virtual machine from \
                writing, too.
                """)
        var noLock = false

        func validate() throws {
            if dryRun, repair == nil { throw ValidationError("--dry-run needs --repair.") }
            if dropUnreadableSnapshots, repair != .all {
                throw ValidationError("--drop-unreadable-snapshots needs --repair all.")
            }
            if discardRemnants, repair == nil { throw ValidationError("--discard-remnants needs --repair.") }
            if forceShare, repair != nil, !dryRun {
                throw ValidationError("--force-share can't be used with --repair.")
            }
        }

        func run() throws {
            let output = FindingOutput(image: image, json: json, isMovingTarget: forceShare)
            let bar = ProgressBar()
            Interruption.catchSignals()
            let outcome: Outcome
            do throws(QCOW2Error) {
                outcome = try perform(output, bar)
                bar.clear()
            } catch {
                bar.clear()
                try output.throwFailure()
                let state = repair == nil ? "was not checked" : "is as it was"
                if error.code == .cancelled, let failure = Interruption.failure("'\(image)' \(state).") {
                    throw failure
                }
                let failure = Failure(error, in: image)
                // What can't be made out at all was not checked.
                throw Failure(failure.message, status: error.code == .corrupt ? 1 : failure.status)
            }
            try output.finish(outcome.check, outcome.repair)
            let status = outcome.check.exitStatus
            if status != 0 { throw ExitCode(status) }
        }

        /// The last check, and the repair before it.
        private struct Outcome {
            let check: CheckReport
            var repair: RepairReport?
        }

        private func perform(_ output: FindingOutput, _ bar: ProgressBar) throws(QCOW2Error) -> Outcome {
            let writes = repair != nil && !dryRun
            var suspect = try open(for: writes ? .writing : forceShare ? .readingWithoutLock : .reading)
            var options = CheckOptions()
            options.decodesCompressedClusters = deep
            options.progress = { progress in
                bar.show(progress)
                return Interruption.signal == 0 && !output.hasFailed
            }
            guard let repair else { return Outcome(check: try suspect.check(options) { output.add($0) }) }
            var writeOptions = WriteOptions()
            writeOptions.discardsFreedClusters = discard
            writeOptions.progress = options.progress
            let report = try suspect.repair(
                repair.scope, isDryRun: dryRun, droppingUnreadableSnapshots: dropUnreadableSnapshots,
                discardingRemnants: discardRemnants, checking: options, options: writeOptions,
                found: { output.add($0) },
                remaining: { output.addRemaining($0) })
            return Outcome(check: report.after ?? report.before, repair: report)
        }

        private func open(for access: FileStorage.Access) throws(QCOW2Error) -> SuspectImage<FileStorage> {
            do throws(QCOW2Error) {
                return try SuspectImage.open(image, for: access, locks: noLock ? .ifAvailable : .forWriting)
            } catch {
                throw error.namingNoLock
            }
        }
    }
}

/// What to repair.
enum RepairChoice: String, ExpressibleByArgument {
    case leaks, all

    var scope: RepairScope { self == .leaks ? .leaks : .all }
}

extension CheckReport {
    /// The documented exit status.
    var exitStatus: Int32 {
        switch worstSeverity {
        case .critical, .corruption: 2
        case .leak: 3
        case .unsupported, .notice, nil: 0
        }
    }
}
