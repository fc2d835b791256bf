// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import QCOW2
import QCOW2Testing
import Testing

/// What a check of some bytes found.
struct CheckResult {
    let report: CheckReport
    let findings: [Finding]

    /// Checks bytes, opened leniently.
    init(_ bytes: [UInt8], _ options: CheckOptions = CheckOptions()) throws {
        let image = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
        nonisolated(unsafe) var findings: [Finding] = []
        report = try image.check(options) { findings.append($0) }
        self.findings = findings
    }

    /// The codes found, with how often each.
    var codes: [String: UInt64] {
        Dictionary(uniqueKeysWithValues: report.tallies.map { ($0.code.rawValue, $0.count) })
    }

    /// For messages of tests.
    var text: String { findings.map { "\($0.severity) \($0.code): \($0.message)" }.joined(separator: "\n") }
}

@Suite struct CheckTests {
    static let fixtures = GoldenImageTests.names + ["v3-512-refcount1", "v3-512-bitmaps"]

    @Test("Images that real tools made are clean", arguments: fixtures)
    func golden(_ name: String) throws {
        let result = try CheckResult(Fixtures.bytes("\(name).qcow2"))
        #expect(result.report.tallies.isEmpty, "\(result.text)")
        #expect(result.report.isComplete)
    }

    @Test("What our verbs made is clean", arguments: Specimen.all)
    func specimens(_ specimen: Specimen) throws {
        let result = try CheckResult(specimen.bytes)
        #expect(result.report.tallies.isEmpty, "\(result.text)")
    }

    @Test("The worked example is clean in every state", arguments: WorkedExample.allCases)
    func workedExample(_ state: WorkedExample) throws {
        let result = try CheckResult(state.bytes)
        #expect(result.report.tallies.isEmpty, "\(result.text)")
    }
}
