// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Check an image: all metadata of the active state and of every snapshot.",
            discussion: """
                Opens the image for reading only; needs neither its backing file nor an encryption key. Exit status: \
                0 clean, 1 failed, 2 corruption found, 3 only leaks found.
                """)

        @Argument(help: "The qcow2 image file.", completion: .file())
        var image: String

        @Flag(help: "Print JSON.")
        var json = false

        @Flag(help: "Also decompress every compressed cluster.")
        var deep = false

        @Flag(name: [.long, .customShort("U")], help: "Read the image even while another process writes to it.")
        var forceShare = false

        func run() throws {
            let output = FindingOutput(image: image, json: json, isMovingTarget: forceShare)
            let bar = ProgressBar()
            Interruption.catchSignals()
            let report: CheckReport
            do throws(QCOW2Error) {
                report = try check(output, bar)
                bar.clear()
            } catch {
                bar.clear()
                try output.throwFailure()
                if error.code == .cancelled, let failure = Interruption.failure("'\(image)' was not checked.") {
                    throw failure
                }
                let failure = Failure(error, in: image)
                // What can't be made out at all was not checked.
                throw Failure(failure.message, status: error.code == .corrupt ? 1 : failure.status)
            }
            try output.finish(report)
            if report.exitStatus != 0 { throw ExitCode(report.exitStatus) }
        }

        private func check(_ output: FindingOutput, _ bar: ProgressBar) throws(QCOW2Error) -> CheckReport {
            let suspect = try SuspectImage.open(image, for: forceShare ? .readingWithoutLock : .reading)
            var options = CheckOptions()
            options.decodesCompressedClusters = deep
            options.progress = { progress in
                bar.show(progress)
                return Interruption.signal == 0 && !output.hasFailed
            }
            return try suspect.check(options) { output.add($0) }
        }
    }
}

extension CheckReport {
    /// The documented exit status.
    var exitStatus: Int32 {
        switch worstSeverity {
        case .critical, .corruption: 2
        case .leak: 3
        case .notice, nil: 0
        }
    }
}
