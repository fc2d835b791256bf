// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2Testing
import TestTools
import Testing

@testable import QCOW2

/// Whichever system call goes wrong in whichever way, the file is the old image, or the new one with success.
@Suite struct SystemFaultTests {
    typealias Fault = FaultyCalls.Fault

    static let faults: [Fault] = [.error(EIO), .error(ENOSPC), .error(EINTR), .short, .nothing]
    static let specimens = Specimen.all.filter {
        ["v3-512", "v2-512 with three snapshots", "v3-4k-zstd"].contains($0.testDescription)
    }

    /// A copy of a specimen as a file.
    private struct Subject {
        let folder: TemporaryFolder
        var path: String { folder.file("disk.qcow2") }

        init(_ bytes: [UInt8]) throws {
            folder = try TemporaryFolder()
            try Data(bytes).write(to: URL(fileURLWithPath: path))
        }

        var bytes: [UInt8] { get throws { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) } }

        /// Opens it over calls that are counted from then on.
        func open(_ calls: FaultyCalls) throws -> Image<SystemFile<FaultyCalls>> {
            let image = try Image(storage: SystemFile(path: path, for: .writing, calls: calls))
            calls.script.clear()
            return image
        }
    }

    /// What a verb does when nothing goes wrong, and what it makes.
    private func dryRun(_ verb: Verb, _ specimen: Specimen) throws -> (calls: [FaultyCalls.Call], new: Contents) {
        let subject = try Subject(specimen.bytes)
        let faulty = FaultyCalls()
        var image = try subject.open(faulty)
        try verb.perform(on: &image)
        let calls = faulty.script.calls
        _ = image.close()
        return (calls, try Contents(of: subject.bytes))
    }

    @Test("A call that fails once is named, changes nothing, and can be repeated", arguments: Verb.allCases, specimens)
    func once(_ verb: Verb, _ specimen: Specimen) throws {
        let (calls, new) = try dryRun(verb, specimen)
        var judge = try CrashJudge([specimen.bytes], readingEvery: 8)
        let header = try #require(calls.firstIndex { $0.kind == .write && $0.position == 0 })
        let done = try #require(calls[header...].firstIndex { $0.kind == .flush })
        #expect(Set(calls.map(\.kind)).isSuperset(of: [.status, .read, .write, .flush]))
        for (index, call) in calls.enumerated() {
            for fault in Self.faults where fault.applies(to: call.kind) {
                let story = "\(fault) in call \(index), \(call)"
                let subject = try Subject(specimen.bytes)
                let faulty = FaultyCalls()
                var image = try subject.open(faulty)
                faulty.script.plan(fault, at: index)
                var failure: QCOW2Error?
                do throws(QCOW2Error) { try verb.perform(on: &image) } catch { failure = error }
                let isHarmless = fault == .short || fault == .error(EINTR) || index > done
                #expect((failure == nil) == isHarmless, "\(story)")
                if let failure {
                    #expect(failure.code == .inputOutput && failure.message.hasPrefix(call.kind.words), "\(story)")
                    if let position = call.position {
                        #expect(failure.offset == HostOffset(UInt64(position)), "\(story)")
                    }
                    if case .error(let number) = fault {
                        #expect((failure.cause as? SystemError)?.number == number, "\(story)")
                    }
                    // The old image, after a failure of the switch as well, and what was appended is cut off again.
                    let bytes = try subject.bytes
                    if case .broken(let why) = judge.judge(bytes) { Issue.record("\(story): \(why)") }
                    #expect(bytes.count == specimen.bytes.count, "\(story)")
                    try verb.perform(on: &image)
                }
                _ = image.close()
                let bytes = try subject.bytes
                #expect(try Contents(of: bytes) == new, "\(story)")
                #expect(ConsistencyCount(bytes).findings.isEmpty, "\(story)")
                TestTally.add(1, to: "\(verb)", of: "system calls gone wrong once")
            }
        }
    }

    @Test(
        "A disk that fails for good leaves the old image or the new one, and never success for neither",
        arguments: Verb.allCases, [EIO, ENOSPC])
    func lasting(_ verb: Verb, _ number: Int32) throws {
        let specimen = try #require(Self.specimens.first)
        let (calls, new) = try dryRun(verb, specimen)
        let old = try Contents(of: specimen.bytes)
        for index in calls.indices {
            let subject = try Subject(specimen.bytes)
            let faulty = FaultyCalls()
            var image = try subject.open(faulty)
            faulty.script.plan(.error(number), at: index, isLasting: true)
            var failure: QCOW2Error?
            do throws(QCOW2Error) { try verb.perform(on: &image) } catch { failure = error }
            faulty.script.clear()
            let bytes = try subject.bytes
            let contents = try Contents(of: bytes)
            #expect(contents == new || (failure != nil && contents == old), "call \(index)")
            #expect(ConsistencyCount(bytes).findings.isEmpty, "call \(index)")
            // Once the disk works again, so does the value.
            if contents == old { try verb.perform(on: &image) }
            try image.createSnapshot(named: "afterwards")
            _ = image.close()
            let last = try subject.bytes
            #expect(try Contents(of: last).names.last?.hasSuffix("afterwards") == true, "call \(index)")
            #expect(ConsistencyCount(last).findings.isEmpty, "call \(index)")
            TestTally.add(1, to: "\(verb)", of: "system calls failing for good")
        }
    }

    @Test("A failed flush is reported, and what it was for is done anew", arguments: Verb.allCases)
    func flush(_ verb: Verb) throws {
        let specimen = try #require(Self.specimens.first)
        let (calls, _) = try dryRun(verb, specimen)
        for index in calls.indices where calls[index].kind == .flush {
            let subject = try Subject(specimen.bytes)
            let faulty = FaultyCalls()
            var image = try subject.open(faulty)
            faulty.script.plan(.error(EIO), at: index)
            #expect(throws: QCOW2Error.self) { try verb.perform(on: &image) }
            // No flush follows but one behind a new write of the header.
            let rest = faulty.script.calls[(index + 1)...].filter { $0.kind == .flush || $0.kind == .write }
            #expect(rest.isEmpty || rest.map(\.kind) == [.write, .flush] && rest.first?.position == 0)
            faulty.script.clear()
            try verb.perform(on: &image)
            #expect(faulty.script.calls.count { $0.kind == .flush } == 2)
        }
    }

    @Test("Where holes can't be punched, nothing else is different", arguments: [EOPNOTSUPP, ENOSYS, EINVAL])
    func noHoles(_ number: Int32) throws {
        let specimen = try #require(Self.specimens.first)
        let (calls, new) = try dryRun(.applyAndSave, specimen)
        let first = try #require(calls.firstIndex { $0.kind == .punch })
        let subject = try Subject(specimen.bytes)
        let faulty = FaultyCalls()
        var image = try subject.open(faulty)
        faulty.script.plan(.error(number), at: first, isLasting: true)
        try Verb.applyAndSave.perform(on: &image)
        _ = image.close()
        #expect(try Contents(of: subject.bytes) == new)
        #expect(try ConsistencyCount(subject.bytes).findings.isEmpty)
    }
}
