// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Every invariant of section "7.1", violated.
@Suite struct ViolationTests {
    @Test("Every violated invariant is found, by its code and nothing else", arguments: Violation.all)
    func found(_ violation: Violation) throws {
        let result = try CheckResult(violation.bytes())
        for (code, count) in violation.codes where count > 0 {
            #expect(result.codes[code] == count, "\(code)\n\(result.text)")
        }
        let unexpected = Set(result.codes.keys).subtracting(violation.codes.keys)
        #expect(unexpected.isEmpty, "\(result.text)")
        // Whatever is handed out has a place and a whole sentence.
        #expect(result.findings.allSatisfy { $0.message.hasSuffix(".") && $0.offset != nil })
    }

    @Test("The invariants are all there")
    func complete() {
        let tested = Set(Violation.all.map(\.invariant))
        // I-30 has a test of its own: it takes a deep check.
        let missing = (1...31).map { "I-\($0)" }.filter { !tested.contains($0) && $0 != "I-30" }
        #expect(missing.isEmpty)
    }

    @Test(
        "qemu-img check says what it is known to say", .enabled(if: Tool.isInstalled("qemu-img"), "needs qemu-img"),
        arguments: Violation.all)
    func compare(_ violation: Violation) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Data(violation.bytes()).write(to: URL(fileURLWithPath: path))
        let result = try Tool.run("qemu-img", ["check", "-f", "qcow2", path])
        #expect(result.status == violation.theirStatus, "\(result.output)\(result.errors)")
    }
}
