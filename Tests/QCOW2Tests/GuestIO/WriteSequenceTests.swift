// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Random lives of images, without any tool.
///
/// `QCOW2_WRITE_SEQUENCES` says how many, `QCOW2_SEED` with which seed they start: a failure names its seed.
@Suite struct WriteSequenceTests {
    private static func setting(_ name: String, _ standard: UInt64) -> UInt64 {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } ?? standard
    }

    static let seeds: Range<UInt64> = {
        let first = setting("QCOW2_SEED", 1)
        return first..<(first + setting("QCOW2_WRITE_SEQUENCES", 60))
    }()

    @Test("Every state reads as the model says after every step, and every flushed image is clean", arguments: seeds)
    func sequence(_ seed: UInt64) throws {
        var sequence = WriteSequence(seed: seed)
        do {
            var image = try sequence.makeImage()
            for _ in 0..<14 {
                let isFlushed = try sequence.step(&image)
                let mismatch = try sequence.mismatch(image)
                #expect(mismatch == nil, "\(sequence.story)")
                if mismatch != nil { return }
                guard isFlushed else { continue }
                let options = image.guestWriteOptions
                let bytes = image.close().bytes
                let findings = ConsistencyCount(bytes).findings
                #expect(findings.isEmpty, "\(sequence.story): \(findings.joined(separator: "; "))")
                if !findings.isEmpty { return }
                image = try Image(storage: InMemoryStorage(bytes))
                image.guestWriteOptions = options
            }
        } catch {
            Issue.record(error, "\(sequence.story)")
        }
    }
}
