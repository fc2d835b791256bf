// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

@Suite struct CreateTests {
    /// A kind of image, and its name for messages.
    struct Kind: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let new: NewImage

        init(_ name: String, size: UInt64, _ change: (inout NewImage) -> Void = { _ in }) {
            testDescription = name
            var new = NewImage(virtualSize: size)
            change(&new)
            self.new = new
        }
    }

    static let kinds = [
        Kind("default", size: 1 << 30),
        Kind("empty disk", size: 0),
        Kind("version 2", size: 1 << 20) {
            $0.version = 2
            $0.clusterSize = 512
        },
        Kind("1-bit refcounts", size: 100 * 512) {
            $0.clusterSize = 512
            $0.refcountBits = 1
        },
        Kind("preallocated", size: 700 * 512) {
            $0.clusterSize = 512
            $0.refcountBits = 64
            $0.preallocation = .metadata
        },
        Kind("extended, backing, preallocated", size: 5 << 20) {
            $0.hasExtendedL2 = true
            $0.clusterSize = 16384
            $0.backingFile = NewImage.BackingFile(name: "base.raw", format: "raw")
            $0.preallocation = .metadata
        },
        Kind("zstd", size: 1 << 20) {
            $0.compressionType = .zstd
            $0.allowsLazyRefcounts = true
        },
    ]

    @Test("A new image says what it was made as, is consistent, and reads as zeros", arguments: kinds)
    func fields(_ kind: Kind) throws {
        let image = try Image.create(kind.new, in: InMemoryStorage([]))
        #expect(image.virtualSize == kind.new.virtualSize)
        #expect(image.version == kind.new.version)
        #expect(image.clusterSize == kind.new.clusterSize)
        #expect(image.refcountBits == kind.new.refcountBits)
        #expect(image.incompatibleFeatures.contains(.extendedL2) == kind.new.hasExtendedL2)
        #expect(image.incompatibleFeatures.contains(.compressionType) == (kind.new.compressionType == .zstd))
        #expect(image.compatibleFeatures.contains(.lazyRefcounts) == kind.new.allowsLazyRefcounts)
        #expect(image.hasBackingFile == (kind.new.backingFile != nil))
        #expect(image.snapshots.isEmpty)
        if kind.new.backingFile == nil, kind.new.virtualSize > 0 {
            #expect(try image.read(512, at: GuestOffset(kind.new.virtualSize - 512)).allSatisfy { $0 == 0 })
        }
        #expect(ConsistencyCount(image.close().bytes).findings.isEmpty)
    }

    @Test("A new image can be snapshotted at once", arguments: kinds.filter { $0.new.refcountBits > 1 })
    func snapshot(_ kind: Kind) throws {
        var image = try Image.create(kind.new, in: InMemoryStorage([]))
        try image.createSnapshot(named: "empty")
        #expect(ConsistencyCount(image.close().bytes).findings.isEmpty)
    }

    @Test("A crash while creating leaves no image, or the whole one", arguments: kinds)
    func crash(_ kind: Kind) throws {
        let image = try Image.create(kind.new, in: InMemoryStorage([]))
        let storage = image.close()
        let whole = storage.bytes
        let states = CrashStates(of: [], storage.journal, randomStatesPerGroup: 8, tornStatesPerWrite: 4, seed: 3)
        var wholeCount = 0
        let count = states.forEach { bytes, description in
            guard (try? Image(storage: InMemoryStorage(bytes))) != nil else { return }
            wholeCount += 1
            #expect(bytes == whole, "\(description)")
        }
        #expect(wholeCount > 0 && count > wholeCount)
    }

    @Test(
        "What the format doesn't allow is refused",
        arguments: [
            Kind("version 4", size: 512) { $0.version = 4 },
            Kind("odd cluster size", size: 512) { $0.clusterSize = 1000 },
            Kind("small clusters", size: 512) { $0.clusterSize = 256 },
            Kind("large clusters", size: 512) { $0.clusterSize = 4 << 20 },
            Kind("negative cluster size", size: 512) { $0.clusterSize = .min },
            Kind("odd refcounts", size: 512) { $0.refcountBits = 12 },
            Kind("wide refcounts", size: 512) { $0.refcountBits = 128 },
            Kind("no refcounts", size: 512) { $0.refcountBits = 0 },
            Kind("version 2, refcounts", size: 512) {
                $0.version = 2
                $0.refcountBits = 8
            },
            Kind("version 2, extended", size: 512) {
                $0.version = 2
                $0.hasExtendedL2 = true
            },
            Kind("version 2, zstd", size: 512) {
                $0.version = 2
                $0.compressionType = .zstd
            },
            Kind("version 2, lazy", size: 512) {
                $0.version = 2
                $0.allowsLazyRefcounts = true
            },
            Kind("extended, small clusters", size: 512) {
                $0.clusterSize = 8192
                $0.hasExtendedL2 = true
            },
            Kind("preallocated over a backing file", size: 512) {
                $0.preallocation = .metadata
                $0.backingFile = NewImage.BackingFile(name: "base", format: "raw")
            },
            Kind("odd size", size: 513),
            Kind("too large", size: 1 << 63),
            Kind("too large for its clusters", size: 129 << 30) { $0.clusterSize = 512 },
            Kind("too many clusters to count", size: 128 << 30) {
                $0.clusterSize = 512
                $0.refcountBits = 64
                $0.preallocation = .metadata
            },
            Kind("no name", size: 512) { $0.backingFile = NewImage.BackingFile(name: "", format: "raw") },
            Kind("no format", size: 512) { $0.backingFile = NewImage.BackingFile(name: "base", format: "") },
            Kind("long format", size: 512) {
                $0.backingFile = NewImage.BackingFile(name: "base", format: "sixteen bytes...")
            },
            Kind("long name", size: 512) {
                $0.backingFile = NewImage.BackingFile(name: String(repeating: "n", count: 1024), format: "raw")
            },
            Kind("no room for the name", size: 512) {
                $0.clusterSize = 512
                $0.backingFile = NewImage.BackingFile(name: String(repeating: "n", count: 400), format: "raw")
            },
        ])
    func refusals(_ kind: Kind) {
        let error = #expect(throws: QCOW2Error.self) { _ = try Image.create(kind.new, in: InMemoryStorage([])).close() }
        #expect(error?.code == .unsupported || error?.code == .limitExceeded)
    }

    @Test func onlyIntoEmptyWritableStorages() {
        let new = NewImage(virtualSize: 512)
        var error = #expect(throws: QCOW2Error.self) { _ = try Image.create(new, in: InMemoryStorage([1])).close() }
        #expect(error?.code == .inputOutput)
        error = #expect(throws: QCOW2Error.self) {
            _ = try Image.create(new, in: InMemoryStorage([], isWritable: false)).close()
        }
        #expect(error?.code == .readOnly)
    }

    @Test("A new file is locked, and no file is ever replaced")
    func files() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("new.qcow2")
        do {
            let image = try Image.create(path, NewImage(virtualSize: 1 << 20))
            #expect(image.virtualSize == 1 << 20)
            let error = #expect(throws: QCOW2Error.self) { _ = try Image.open(path, for: .reading).virtualSize }
            #expect(error?.code == .inUse)
        }
        let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        let error = #expect(throws: QCOW2Error.self) {
            _ = try Image.create(path, NewImage(virtualSize: 2 << 20)).virtualSize
        }
        #expect(error?.code == .inputOutput && error?.cause is SystemError)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == bytes)
        #expect(throws: QCOW2Error.self) {
            _ = try Image.create(folder.file("no/such/folder"), NewImage(virtualSize: 512)).virtualSize
        }
        #expect(throws: QCOW2Error.self) {
            _ = try Image.create(folder.file("refused"), NewImage(virtualSize: 513)).virtualSize
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["new.qcow2"])
    }
}
