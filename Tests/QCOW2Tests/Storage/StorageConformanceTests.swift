// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// Every storage of ours keeps the contract, and the suite notices one that doesn't.
@Suite struct StorageConformanceTests {
    @Test("A file keeps the contract")
    func file() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("bytes")
        let conformance = try StorageConformance { bytes in
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            return try FileStorage(path: path, for: .writing)
        }
        #expect(conformance.violations.isEmpty)
    }

    @Test("Memory keeps the contract, by itself and under faults that don't come")
    func memory() throws {
        #expect(try StorageConformance { InMemoryStorage($0) }.violations.isEmpty)
        #expect(try StorageConformance { FaultInjectingStorage($0, failingAt: nil) }.violations.isEmpty)
    }

    @Test("A storage that breaks the contract is noticed", arguments: BrokenStorage.Defect.allCases)
    func broken(_ defect: BrokenStorage.Defect) throws {
        #expect(try !StorageConformance { BrokenStorage($0, defect) }.violations.isEmpty)
    }
}

/// A storage in memory that does one thing wrong.
struct BrokenStorage: Storage, ~Copyable {
    enum Defect: CaseIterable {
        case shortWrite, shortRead, garbageBehindTheEnd, punchesTooMuch, truncateKeepsLength, neverGrows, readOnly
    }

    private var base: InMemoryStorage
    private let defect: Defect

    init(_ bytes: [UInt8], _ defect: Defect) {
        base = InMemoryStorage(bytes)
        self.defect = defect
    }

    var name: String { base.name }
    var isWritable: Bool { defect != .readOnly }

    func byteCount() throws(QCOW2Error) -> UInt64 { try base.byteCount() }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try base.read(into: &buffer, at: offset)
        if defect == .shortRead, buffer.count > 4096 { buffer[buffer.count - 2000] ^= 1 }
        if defect == .garbageBehindTheEnd, offset.rawValue > base.bytes.count { buffer[0] = 1 }
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        var count = bytes.count
        if defect == .shortWrite { count = min(count, 1 << 20) }
        if defect == .neverGrows { count = max(0, min(count, base.bytes.count - Int(offset.rawValue))) }
        if count > 0 { try base.write(bytes.extracting(..<count), at: offset) }
    }

    mutating func flush() throws(QCOW2Error) { try base.flush() }

    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        if defect != .truncateKeepsLength { try base.truncate(toByteCount: byteCount) }
    }

    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        try base.punchHole(at: offset, byteCount: byteCount + (defect == .punchesTooMuch ? 1 : 0))
    }
}
