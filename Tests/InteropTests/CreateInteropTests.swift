// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

extension NewImage {
    /// What `qemu-img create -o` calls the same choices.
    var optionText: String {
        var options = ["compat=\(version == 2 ? "0.10" : "1.1")", "cluster_size=\(clusterSize)"]
        if version == 3 { options.append("refcount_bits=\(refcountBits)") }
        if hasExtendedL2 { options.append("extended_l2=on") }
        if compressionType == .zstd { options.append("compression_type=zstd") }
        if allowsLazyRefcounts { options.append("lazy_refcounts=on") }
        if preallocation == .metadata { options.append("preallocation=metadata") }
        return options.joined(separator: ",")
    }
}

/// New images against those of `qemu-img create`.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct CreateInteropTests {
    struct Case: CustomTestStringConvertible, Sendable {
        var new: NewImage
        var testDescription: String { "\(new.virtualSize) bytes, \(new.optionText), \(new.backingFile?.name ?? "")" }
    }

    static let cases: [Case] = {
        var cases: [Case] = []
        for clusterSize in [512, 1024, 4096, 8192, 65536, 2 << 20] {
            for refcountBits in [1, 2, 4, 8, 16, 32, 64] {
                for version in refcountBits == 16 ? [2, 3] : [3] {
                    var new = NewImage(virtualSize: UInt64(clusterSize * 50 + 512))
                    new.clusterSize = clusterSize
                    new.refcountBits = refcountBits
                    new.version = version
                    cases.append(Case(new: new))
                }
            }
        }
        for size in [0, 512, 1 << 30, 1 << 40, 1 << 46] as [UInt64] {
            cases.append(Case(new: NewImage(virtualSize: size)))
        }
        var other = NewImage(virtualSize: 10 << 20)
        other.hasExtendedL2 = true
        cases.append(Case(new: other))
        other.compressionType = .zstd
        other.allowsLazyRefcounts = true
        cases.append(Case(new: other))
        for clusterSize in [512, 16384, 65536] {
            for version in [2, 3] {
                var new = NewImage(virtualSize: 10 << 20)
                new.clusterSize = clusterSize
                new.version = version
                new.backingFile = NewImage.BackingFile(name: "base.raw", format: "raw")
                cases.append(Case(new: new))
            }
        }
        return cases
    }()

    @Test("A new image is byte for byte that of qemu-img create", arguments: cases)
    func sameBytes(_ test: Case) throws {
        let folder = try TemporaryFolder()
        let (ours, theirs) = (folder.file("ours.qcow2"), folder.file("theirs.qcow2"))
        _ = try Image.create(ours, test.new).virtualSize
        var backing: [String] = []
        if let file = test.new.backingFile {
            try Data(count: 1 << 20).write(to: URL(fileURLWithPath: folder.file(file.name)))
            backing = ["-b", file.name, "-F", file.format]
        }
        try Tool.check(
            "qemu-img",
            ["create", "-q", "-f", "qcow2"] + backing + ["-o", test.new.optionText, theirs, "\(test.new.virtualSize)"])
        let (left, right) = (try contents(ours), try contents(theirs))
        #expect(left == right, "\(test.testDescription): \(left.count) and \(right.count) bytes")
        try Tool.check("qemu-img", ["check", "-f", "qcow2", ours])
    }

    static let preallocated: [Case] = {
        var cases: [Case] = []
        for (clusterSize, refcountBits) in [(512, 1), (512, 16), (512, 64), (4096, 2), (65536, 16), (2 << 20, 16)] {
            for version in refcountBits == 16 ? [2, 3] : [3] {
                // Many refcount blocks where they are small.
                var new = NewImage(virtualSize: UInt64(max(9 << 20, clusterSize * 3) + 512))
                new.clusterSize = clusterSize
                new.refcountBits = refcountBits
                new.version = version
                new.preallocation = .metadata
                cases.append(Case(new: new))
            }
        }
        for clusterSize in [16384, 65536] {
            for backing in [nil, NewImage.BackingFile(name: "base.raw", format: "raw")] {
                var new = NewImage(virtualSize: 10 << 20)
                new.clusterSize = clusterSize
                new.hasExtendedL2 = true
                new.preallocation = .metadata
                new.backingFile = backing
                cases.append(Case(new: new))
            }
        }
        return cases
    }()

    @Test("An image with everything allocated is clean, reads right and can be written", arguments: preallocated)
    func wholeDisk(_ test: Case) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        var model = Data(count: Int(test.new.virtualSize))
        if let file = test.new.backingFile {
            model = Data((0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 10) }) + model.dropFirst(1 << 20)
            try model.prefix(1 << 20).write(to: URL(fileURLWithPath: folder.file(file.name)))
        }
        _ = try Image.create(path, test.new).virtualSize
        try Tool.check("qemu-img", ["check", "-f", "qcow2", path])
        #expect(try content(path, folder) == model)
        let information = try Tool.check("qemu-img", ["check", "-f", "qcow2", "--output=json", path])
        let allocated =
            try #require(
                JSONSerialization.jsonObject(with: Data(information.utf8)) as? [String: Any])["allocated-clusters"]
            as? Int
        let clusterSize = UInt64(test.new.clusterSize)
        #expect(allocated == Int((test.new.virtualSize + clusterSize - 1) / clusterSize))

        try Tool.check("qemu-io", ["-f", "qcow2", "-c", "write -P 7 700000 70000", path])
        model.replaceSubrange(700_000..<770_000, with: Data(repeating: 7, count: 70_000))
        #expect(try content(path, folder) == model)
        try Tool.check("qemu-img", ["check", "-f", "qcow2", path])
    }

    @Test("qemu-img info agrees", arguments: [cases[0], cases[40], cases.last, preallocated.last].compactMap(\.self))
    func information(_ test: Case) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        _ = try Image.create(path, test.new).virtualSize
        let output = try Tool.check("qemu-img", ["info", "--output=json", "-f", "qcow2", path])
        let root = try #require(JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
        #expect(root["virtual-size"] as? UInt64 == test.new.virtualSize)
        #expect(root["cluster-size"] as? Int == test.new.clusterSize)
        #expect(root["backing-filename"] as? String == test.new.backingFile?.name)
        #expect(root["backing-filename-format"] as? String == test.new.backingFile?.format)
        let specific = try #require((root["format-specific"] as? [String: Any])?["data"] as? [String: Any])
        #expect(specific["compat"] as? String == (test.new.version == 2 ? "0.10" : "1.1"))
        if test.new.version == 3 {
            #expect(specific["refcount-bits"] as? Int == test.new.refcountBits)
            #expect(specific["extended-l2"] as? Bool == test.new.hasExtendedL2)
            #expect(specific["lazy-refcounts"] as? Bool == test.new.allowsLazyRefcounts)
            #expect(specific["corrupt"] as? Bool == false)
        }
    }

    private func contents(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

    private func content(_ path: String, _ folder: TemporaryFolder) throws -> Data {
        let output = folder.file("out.raw")
        try Tool.check("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", path, output])
        return try contents(output)
    }
}
