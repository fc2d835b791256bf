// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import Synchronization
import TestTools
import Testing

/// Runs the same command lines through the real qemu-img and through ours, on identical copies of a folder, and
/// compares what they print, how they end, and what they leave.
struct Comparison {
    /// The folder both start from.
    let master: TemporaryFolder
    private let work: TemporaryFolder

    init() throws {
        master = try TemporaryFolder()
        work = try TemporaryFolder()
    }

    /// What must be the same of the images afterwards.
    enum Aftermath {
        /// Nothing was written: every byte is as in the master.
        case untouched
        /// Clean by qemu-img check, the same content of every state, the same `info`.
        case sameImages
        /// As good as they got; each line says of its image what it says.
        case repaired
    }

    /// Runs and compares.
    ///
    /// The command lines find the folder's files by their plain names. `body` is called between making the copies and
    /// running, with the two folders. Returns what the real one did for each line.
    @discardableResult
    func run(
        _ lines: [Invocation], in surroundings: Surroundings = .ordinary, then aftermath: Aftermath,
        location: SourceLocation = #_sourceLocation,
        whileHolding body: (_ theirs: String, _ ours: String, _ run: () throws -> Void) throws -> Void = {
            try $2()
        }
    ) throws -> [Outcome] {
        let (theirFolder, ourFolder) = (work.file("theirs"), work.file("ours"))
        for folder in [theirFolder, ourFolder] {
            try? FileManager.default.removeItem(atPath: folder)
            try Tool.check("cp", ["-a", "--sparse=always", master.path, folder])
        }
        let program = try #require(Program.theirs)
        let tools = try TemporaryFolder()
        let own = try Program.ours(in: tools, isCopy: surroundings == .unprivileged)
        let (theirResults, ourResults) = (tools.file("theirs"), tools.file("ours"))
        try body(theirFolder, ourFolder) {
            let processes = [
                try program.start(lines, in: theirFolder, results: theirResults, surroundings),
                try own.start(lines, in: ourFolder, results: ourResults, surroundings),
            ]
            for process in processes { process.waitUntilExit() }
        }
        let theirs = try Program.outcomes(lines.count, results: theirResults)
        let ours = try Program.outcomes(lines.count, results: ourResults)
        var theirImages = Aftereffect.good
        var divergedFiles: Set<[UInt8]> = []
        for (index, line) in lines.enumerated() {
            // There each line is about the file that it names last, or a size behind it.
            let isDiverged =
                aftermath == .repaired ? line.words.contains(where: divergedFiles.contains) : theirImages == .diverged
            guard !isDiverged else {
                ComparisonTally.shared.count(line.command, "not compared, after a difference that leaves another image")
                continue
            }
            let aftereffect = compare(
                line, theirs[index], ours[index], after: lines[..<index], hasWritten: aftermath != .untouched,
                location: location)
            theirImages = max(theirImages, aftereffect)
            if aftereffect == .diverged {
                divergedFiles.formUnion(line.words.filter { $0.ends(with: ".qcow2") })
            }
        }
        switch aftermath {
        case .untouched: try compareUntouched(ourFolder, location: location)
        case .sameImages:
            try compareImages(theirFolder, ourFolder, theirImages, location: location)
        case .repaired: #expect(try files(in: theirFolder) == files(in: ourFolder), sourceLocation: location)
        }
        return theirs
    }

    /// Compares one line's outcomes; says what the real one's images are good for afterwards.
    private func compare(
        _ line: Invocation, _ theirs: Outcome, _ ours: Outcome, after earlier: ArraySlice<Invocation>, hasWritten: Bool,
        location: SourceLocation
    ) -> Aftereffect {
        let normalised = [theirs, ours].map { Normalised($0, line, hasWritten: hasWritten) }
        if normalised[0] == normalised[1] {
            ComparisonTally.shared.count(line.command, "equal")
            // When a refcount would overflow, or the disk is full, qemu-img leaves leaks behind.
            let leaks = theirs.errorText.contains("Invalid argument") || theirs.errorText.contains("No space left")
            return leaks ? .unclean : .good
        }
        if let difference = Difference.all.first(where: { $0.applies(line, theirs, ours) }) {
            ComparisonTally.shared.count(line.command, "different on purpose: \(difference.name)")
            return difference.aftereffect
        }
        ComparisonTally.shared.count(line.command, "DIFFERENT")
        Issue.record(
            """
            \(line)
            after: \(earlier.suffix(4).map(\.description).joined(separator: "; "))
            theirs: \(theirs)
            ours:   \(ours)
            """, sourceLocation: location)
        return .unclean
    }

    private func files(in folder: String) throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: folder).sorted()
    }

    private func bytes(_ path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    private func compareUntouched(_ folder: String, location: SourceLocation) throws {
        #expect(try files(in: folder) == files(in: master.path), sourceLocation: location)
        for name in try files(in: folder) {
            // Not pipes, folders or broken links.
            let kind = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(name)")[.type]
            guard kind as? FileAttributeType == .typeRegular else { continue }
            #expect(
                FileManager.default.contentsEqual(atPath: "\(folder)/\(name)", andPath: master.file(name)),
                "\(name) was changed", sourceLocation: location)
        }
    }

    private func compareImages(
        _ theirs: String, _ ours: String, _ theirImages: Aftereffect, location: SourceLocation
    ) throws {
        #expect(try files(in: theirs) == files(in: ours), sourceLocation: location)
        for name in try files(in: ours) where name.hasSuffix(".raw") {
            let isSame = FileManager.default.contentsEqual(atPath: "\(theirs)/\(name)", andPath: "\(ours)/\(name)")
            #expect(isSame, "content of \(name)", sourceLocation: location)
        }
        for name in try files(in: ours) where name.hasSuffix(".qcow2") {
            let (their, our) = ("\(theirs)/\(name)", "\(ours)/\(name)")
            guard try !bytes(their).isEmpty, FileManager.default.contentsEqual(atPath: their, andPath: our) == false
            else { continue }
            guard try Self.isReadable(bytes(our)) else { continue }
            let check = try Tool.run("qemu-img", ["check", our])
            #expect(check.status == 0, "\(name): \(check.output)\(check.errors)", sourceLocation: location)
            if theirImages == .diverged { continue }
            if theirImages == .good {
                #expect(try Tool.run("qemu-img", ["check", their]).status == 0, "\(name)", sourceLocation: location)
            }
            let infos = try [(their, theirs), (our, ours)].map { path, folder in
                let info = try Tool.check("qemu-img", ["info", "--output=json", path])
                return Normalised.text(info.replacingOccurrences(of: folder, with: ""), hasWritten: true)
            }
            #expect(infos[0] == infos[1], "\(name)", sourceLocation: location)
            try compareContent(name, their, our, location: location)
        }
    }

    /// Whether the real tools can look into an image without a key.
    private static func isReadable(_ bytes: [UInt8]) throws -> Bool {
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        return image.encryption == .none
    }

    /// Compares every state, where our library can read it.
    private func compareContent(_ name: String, _ theirs: String, _ ours: String, location: SourceLocation) throws {
        let states = try [theirs, ours].map { path -> [[UInt8]]? in
            let image = try Image(storage: InMemoryStorage(bytes(path), isWritable: false))
            guard !image.hasBackingFile, !image.incompatibleFeatures.contains(.externalDataFile) else { return nil }
            var states = [try image.read(Int(image.virtualSize), at: GuestOffset(0))]
            for snapshot in image.snapshots where Set(image.snapshots.map(\.id)).count == image.snapshots.count {
                states.append(
                    try image.read(Int(snapshot.diskSize), at: GuestOffset(0), of: .snapshot(.id(snapshot.id))))
            }
            return states
        }
        let isSame = states[0] == states[1]
        #expect(isSame, "content of \(name)", sourceLocation: location)
    }
}

extension [UInt8] {
    fileprivate func ends(with text: String) -> Bool { suffix(text.utf8.count).elementsEqual(text.utf8) }
}

/// What the real qemu-img's images are good for after a line.
enum Aftereffect: Comparable {
    case good
    /// They may hold leaks, or errors.
    case unclean
    /// They hold something else than ours.
    case diverged
}

/// An outcome without what can't be equal: times, and after writing the space that a file takes.
private struct Normalised: Equatable {
    let status: Int
    let output: String
    let errors: String

    init(_ outcome: Outcome, _ line: Invocation, hasWritten: Bool) {
        status = outcome.status
        // Of the steps of progress only the first and the end are the same on any machine.
        output = Self.text(outcome.outputText, hasWritten: hasWritten).replacingOccurrences(
            of: #"\(0\.00/100%\)\r(    \(\d+\.\d\d/100%\)\r)*"#, with: "PROGRESS", options: .regularExpression)
        errors = outcome.errorText
    }

    static func text(_ text: String, hasWritten: Bool) -> String {
        guard hasWritten else { return text }
        var text = text
        for (pattern, replacement) in [
            (#"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"#, "DATE AND TIME"), (#""date-n?sec": \d+"#, "DATE"),
            (#"disk size: [^\n]*"#, "DISK SIZE"), (#""actual-size": \d+"#, "ACTUAL SIZE"),
            (#"Image end offset: \d+"#, "IMAGE END"), (#""image-end-offset": \d+"#, "IMAGE END"),
        ] {
            text = text.replacingOccurrences(of: pattern, with: replacement, options: .regularExpression)
        }
        return text
    }
}

/// How many command lines were compared, by subcommand and result; printed when the tests end.
final class ComparisonTally: Sendable {
    static let shared = ComparisonTally()
    private let counts = Mutex<[String: [String: Int]]>([:])

    private init() { atexit { ComparisonTally.shared.report() } }

    func count(_ command: String, _ result: String) {
        let known = [
            "snapshot", "info", "check", "create", "resize", "map", "compare", "convert", "measure", "dd",
        ]
        counts.withLock { $0[known.contains(command) ? command : "(other)", default: [:]][result, default: 0] += 1 }
    }

    private func report() {
        let all = counts.withLock { $0 }
        guard !all.isEmpty else { return }
        print("Command lines through qemu-img and through ours:")
        for (command, results) in all.sorted(by: { $0.key < $1.key }) {
            print("  \(command): \(results.values.reduce(0, +))")
            for (result, count) in results.sorted(by: { $0.key < $1.key }) { print("    \(count) \(result)") }
        }
    }
}
