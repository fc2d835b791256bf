// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import Foundation
import QCOW2Testing
import Testing

@testable import QCOW2

/// Everything that reads an image comes to one judgement of it, however it is damaged.
///
/// QCOW2_MUTANTS says how many images are made of each golden one, QCOW2_SEED with which to start.
@Suite struct OneReadingTests {
    static let images = ["v2-512", "v3-512", "v3-512-bitmaps", "v3-512-refcount4", "v3-4k-zstd", "v3-16k-extended"]

    private static func number(_ name: String, default value: UInt64) -> UInt64 {
        ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } ?? value
    }

    private static func mutants(of name: String, _ body: (_ seed: UInt64, _ bytes: [UInt8]) throws -> Void) throws {
        let base = try Fixtures.bytes("\(name).qcow2")
        let mutator = ImageMutator(base: base)
        let first = number("QCOW2_SEED", default: 1)
        for seed in first..<(first + number("QCOW2_MUTANTS", default: 90)) {
            var random = SplitMix64(seed: seed)
            var bytes = base
            for _ in 0..<Int.random(in: 1...3, using: &random) { mutator.mutate(&bytes, random.next()) }
            try body(seed, bytes)
        }
    }

    @Test("An image is opened exactly if a check finds nothing that forbids it", arguments: images)
    func opening(_ name: String) throws {
        try Self.mutants(of: name) { seed, bytes in
            var refusal: QCOW2Error?
            do throws(QCOW2Error) { _ = try Image(storage: InMemoryStorage(bytes, isWritable: false)) } catch {
                refusal = error
            }
            var findings: [Finding] = []
            do throws(QCOW2Error) {
                let suspect = try SuspectImage(storage: InMemoryStorage(bytes, isWritable: false))
                _ = try suspect.check { findings.append($0) }
            } catch {
                // What even a check refuses, it refuses as opening does.
                #expect(refusal?.code == error.code && refusal?.message == error.message, "\(name), seed \(seed)")
                return
            }
            let forbidding = findings.first { FindingRule(rawValue: $0.code.rawValue)?.forbidsOpening == true }
            // A table that ends past the end of the file is forbidden in the header alone; a bitmap isn't looked at.
            #expect((refusal != nil) == (forbidding != nil), "\(name), seed \(seed): \(findings.map(\.message))")
            guard let refusal, let forbidding else { return }
            #expect(refusal.message == forbidding.message, "\(name), seed \(seed)")
            #expect(refusal.offset == forbidding.offset, "\(name), seed \(seed)")
        }
    }

    /// What an inspection doesn't ask: it looks at no refcount and no copied flag by itself.
    private static let checkedOnly: Set<FindingRule> = [
        .refcountTooLow, .refcountTooHigh, .refcountOverflow, .referencesUnknown, .copiedFlagL1, .copiedFlagL2,
        .snapshotWritable, .dataInMetadata, .clusterMappedTwice, .snapshotBehindTable, .activeVMState,
    ]

    @Test("What a check finds an inspection finds, too, in the same words; and both refuse the same", arguments: images)
    func inspections(_ name: String) throws {
        var options = InspectionOptions()
        options.findingLimit = .max
        var checkOptions = CheckOptions()
        checkOptions.findingLimitPerCode = .max
        try Self.mutants(of: name) { seed, bytes in
            let storage = InMemoryStorage(bytes, isWritable: false)
            let inspection = try Inspection(of: storage, options: options)
            var refusal: QCOW2Error?
            do throws(QCOW2Error) { _ = try Image(storage: InMemoryStorage(bytes, isWritable: false)) } catch {
                refusal = error
            }
            #expect(inspection.openingError?.description == refusal?.description, "\(name), seed \(seed)")
            guard let suspect = try? SuspectImage(storage: storage) else { return }
            var leaked: UInt64 = 0
            let inspected = Set(inspection.findings)
            let report = try suspect.check(checkOptions) { finding in
                guard let rule = FindingRule(rawValue: finding.code.rawValue) else { return }
                #expect(
                    Self.checkedOnly.contains(rule) || inspected.contains(finding),
                    "\(name), seed \(seed): \(finding.message)")
                leaked += finding.unreferencedClusterCount(in: bytes, suspect.clusterSize)
            }
            guard let clusters = inspection.clusters else { return }
            #expect(clusters.areReferencesKnown == report.isComplete, "\(name), seed \(seed)")
            #expect(clusters.leaked == leaked, "\(name), seed \(seed)")
        }
    }

    @Test("Check and usage agree on what is leaked, or say that it can't be told", arguments: images)
    func leaks(_ name: String) throws {
        try Self.mutants(of: name) { seed, bytes in
            guard let image = try? Image(storage: InMemoryStorage(bytes, isWritable: false)),
                let usage = try? image.usage()
            else { return }
            var leaked: UInt64 = 0
            let report = try image.check { leaked += $0.unreferencedClusterCount(in: bytes, image.clusterSize) }
            guard report.isComplete else { return }
            #expect(usage.file.leakedByteCount == leaked * UInt64(image.clusterSize), "\(name), seed \(seed)")
        }
    }

    @Test("What a repair is said to do, it does; and afterwards all are content", arguments: images)
    func repairs(_ name: String) throws {
        try Self.mutants(of: name) { seed, bytes in
            guard var image = try? SuspectImage(storage: InMemoryStorage(bytes)),
                let forecast = try? image.repair(.all, isDryRun: true, discardingRemnants: true)
            else { return }
            let done = try image.repair(.all, discardingRemnants: true)
            #expect(forecast.raisedRefcountCount == done.raisedRefcountCount, "\(name), seed \(seed)")
            #expect(forecast.loweredRefcountCount == done.loweredRefcountCount, "\(name), seed \(seed)")
            #expect(forecast.changedL2TableCount == done.changedL2TableCount, "\(name), seed \(seed)")
            #expect(forecast.clearedMarks == done.clearedMarks, "\(name), seed \(seed)")
            let after = try image.check()
            guard after.isClean, after.isComplete else { return }
            var sound = try Image(storage: image.close())
            #expect(try sound.usage().file.leakedByteCount == 0, "\(name), seed \(seed)")
            guard sound.refcountBits > 2, !sound.incompatibleFeatures.contains(.externalDataFile) else { return }
            do throws(QCOW2Error) { try sound.createSnapshot(named: "after the repair") } catch {
                #expect(error.code != .corrupt, "\(name), seed \(seed): \(error)")
                return
            }
            #expect(try sound.check().isClean, "\(name), seed \(seed)")
        }
    }
}

extension Finding {
    /// How many clusters of the file it says that they have a refcount, and no reference.
    fileprivate func unreferencedClusterCount(in bytes: [UInt8], _ clusterSize: Int) -> UInt64 {
        guard ["refcount-too-high", "references-unknown"].contains(code.rawValue), let first = index,
            message.contains("but 0 ")
        else { return 0 }
        let end = min(first + count, UInt64((bytes.count + clusterSize - 1) / clusterSize))
        return end > first ? end - first : 0
    }
}
