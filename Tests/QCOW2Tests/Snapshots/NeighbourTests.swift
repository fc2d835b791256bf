// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// A file in memory that another program changes at a chosen call.
private final class SharedFile {
    var base: InMemoryStorage
    /// Reads, writes and flushes so far.
    var callCount = 0
    /// What the other program does, and ahead of which call.
    var neighbour: (index: Int, change: (inout [UInt8]) -> Void)?
    var sectorWriteIndex: Int?

    init(_ bytes: [UInt8]) { base = InMemoryStorage(bytes) }

    var bytes: [UInt8] { base.bytes }

    func count() {
        if let neighbour, neighbour.index == callCount {
            var bytes = base.bytes
            neighbour.change(&bytes)
            base = InMemoryStorage(bytes)
        }
        callCount += 1
    }
}

/// One program's view of the file.
private struct SharedStorage: Storage, ~Copyable {
    let file: SharedFile
    let name = "shared"
    let isWritable = true

    func byteCount() throws(QCOW2Error) -> UInt64 { try file.base.byteCount() }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        file.count()
        try file.base.read(into: &buffer, at: offset)
    }

    mutating func write(_ bytes: Span<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        if offset.rawValue == 0 { file.sectorWriteIndex = file.callCount }
        file.count()
        try file.base.write(bytes, at: offset)
    }

    mutating func flush() throws(QCOW2Error) { file.count() }

    mutating func truncate(toByteCount byteCount: UInt64) throws(QCOW2Error) {
        try file.base.truncate(toByteCount: byteCount)
    }

    mutating func punchHole(at offset: HostOffset, byteCount: UInt64) throws(QCOW2Error) {
        try file.base.punchHole(at: offset, byteCount: byteCount)
    }
}

/// Programs that ignore the locks.
@Suite struct NeighbourTests {
    /// What is done to an image that is open.
    enum Operation: CaseIterable {
        case create, apply, applyAndSave, delete, deleteMany, rename, resize, guestWrite, repair

        fileprivate func perform(on image: inout Image<SharedStorage>) throws {
            switch self {
            case .create: try Verb.create.perform(on: &image)
            case .apply: try Verb.apply.perform(on: &image)
            case .applyAndSave: try Verb.applyAndSave.perform(on: &image)
            case .delete: try Verb.delete.perform(on: &image)
            case .deleteMany: try Verb.deleteMany.perform(on: &image)
            case .rename: try Verb.rename.perform(on: &image)
            case .resize: try image.resize(to: image.virtualSize + 512)
            case .guestWrite:
                try image.write([UInt8](repeating: 9, count: 700), at: GuestOffset(100))
                try image.flush()
            case .repair: try image.repair(.all)
            }
        }

        /// Whether the operation can be done to an image.
        func fits(_ bytes: [UInt8]) -> Bool { self != .resize || bytes[7] == 3 }

        /// The image for it: a repair needs something to do.
        func prepared(_ bytes: [UInt8]) -> [UInt8] {
            var bytes = bytes
            // The corrupt bit; version 2 has none, and gets a leak.
            if self == .repair, bytes[7] == 3 { bytes[79] |= 2 }
            if self == .repair, bytes[7] == 2 { bytes += [UInt8](repeating: 1, count: 512) }
            return bytes
        }
    }

    static let specimens = Specimen.all.filter {
        ["v3-512", "v2-512", "v2-512 with three snapshots", "v3-4k-zstd"].contains($0.testDescription)
    }

    private static func number(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int = 8) -> Int {
        bytes[offset..<(offset + byteCount)].reduce(0) { $0 << 8 | Int($1) }
    }

    /// Does it while the other program comes at a call.
    private func run(
        _ operation: Operation, _ bytes: [UInt8], at index: Int? = nil,
        _ change: @escaping (inout [UInt8]) -> Void = { _ in }
    ) throws -> (file: SharedFile, error: QCOW2Error?) {
        let file = SharedFile(bytes)
        var image = try Image(storage: SharedStorage(file: file))
        file.callCount = 0
        if let index { file.neighbour = (index, change) }
        do {
            try operation.perform(on: &image)
            return (file, nil)
        } catch {
            return (file, try #require(error as? QCOW2Error))
        }
    }

    @Test(
        "A header that changes at any moment up to the switch is noticed, and stays as the other program left it",
        arguments: Operation.allCases, specimens)
    func header(_ operation: Operation, _ specimen: Specimen) throws {
        let old = operation.prepared(specimen.bytes)
        guard operation.fits(old) else { return }
        let dry = try run(operation, old)
        // Version 2 has no bit that says so, and a trailing cluster that nothing counts is no finding.
        guard let switching = dry.file.sectorWriteIndex else { return #expect(operation == .repair && old[7] == 2) }
        #expect(dry.error == nil)
        func change(_ bytes: inout [UInt8]) { bytes[511] ^= 0x40 }
        var changed = old
        change(&changed)
        for index in 0..<switching {
            let (file, error) = try run(operation, old, at: index, change)
            // A repair that comes after the other program works on what that made.
            if operation == .repair, error == nil {
                #expect(file.bytes[511] == changed[511] && index == 0)
                continue
            }
            #expect(error?.code == .inUse, "call \(index) of \(switching): \(String(describing: error))")
            if operation == .guestWrite {
                // Guest data that was put into clusters of its own isn't taken back; the header is theirs.
                #expect(file.bytes.prefix(512) == changed.prefix(512), "call \(index)")
            } else {
                // Not a byte differs, but for clusters that were free and may have been written already.
                #expect(file.bytes.count == changed.count && file.bytes.prefix(512) == changed.prefix(512))
                if file.bytes != changed {
                    #expect(try Contents(of: file.bytes) == Contents(of: changed), "call \(index)")
                    #expect(ConsistencyCount(file.bytes).findings == ConsistencyCount(changed).findings)
                }
            }
            TestTally.add(1, to: "\(operation)", of: "headers changed by another program")
        }
    }

    @Test(
        "So is a table that every plan copies from, from the plan's beginning on", arguments: Operation.allCases,
        specimens)
    func tables(_ operation: Operation, _ specimen: Specimen) throws {
        let old = operation.prepared(specimen.bytes)
        guard operation.fits(old) else { return }
        let dry = try run(operation, old)
        guard let switching = dry.file.sectorWriteIndex else { return }
        // L1 table, refcount table, snapshot table.
        for table in [40, 48, 64] {
            let place = Self.number(old, table)
            func change(_ bytes: inout [UInt8]) { bytes[place + 7] ^= 1 }
            var changed = old
            change(&changed)
            // Between the first flush and the comparison: everything has been read and written.
            let compared = switching - 4
            let (file, error) = try run(operation, old, at: compared, change)
            #expect(error?.code == .inUse, "\(table): \(String(describing: error))")
            #expect(error?.message.contains("table of 'shared' changed") == true)
            // What was appended may be theirs, so it stays.
            #expect(file.bytes.prefix(512) == changed.prefix(512) && file.bytes[place + 7] == changed[place + 7])
            #expect(file.bytes.count >= old.count)
            // At a session's beginning guest writes have read what they need; what they committed stays comparable.
            guard operation != .guestWrite else { continue }
            // Ahead of that the plan may find out for itself that something is wrong.
            for index in 4..<compared {
                let (file, error) = try run(operation, old, at: index, change)
                if error == nil {
                    // Nothing was left that could be repaired.
                    #expect(operation == .repair && file.sectorWriteIndex == nil, "call \(index)")
                } else {
                    #expect(error?.code == .inUse || error?.code == .corrupt, "call \(index)")
                }
                #expect(file.bytes.prefix(512) == changed.prefix(512))
            }
        }
    }

    @Test("What another program appended is neither overwritten by the switch nor cut off", arguments: specimens)
    func length(_ specimen: Specimen) throws {
        let old = specimen.bytes
        for operation in Operation.allCases where operation != .repair && operation.fits(old) {
            let switching = try #require(try run(operation, old).file.sectorWriteIndex)
            let mark = [UInt8](repeating: 0xEE, count: 1 << 20)
            let (file, error) = try run(operation, old, at: switching - 4) { $0 += mark }
            #expect(error?.code == .inUse && error?.message.contains("length") == true, "\(operation)")
            #expect(Array(file.bytes.suffix(mark.count)) == mark && file.bytes.prefix(512) == old.prefix(512))
        }
    }

    @Test(
        "An image that another program has changed since it was opened is refused", arguments: Operation.allCases,
        specimens)
    func stale(_ operation: Operation, _ specimen: Specimen) throws {
        guard operation != .repair, operation.fits(specimen.bytes) else { return }
        for other in Operation.allCases where other != .repair && other.fits(specimen.bytes) {
            let file = SharedFile(specimen.bytes)
            var mine = try Image(storage: SharedStorage(file: file))
            var theirs = try Image(storage: SharedStorage(file: file))
            try other.perform(on: &theirs)
            _ = theirs.close()
            let made = file.bytes
            let error = #expect(throws: QCOW2Error.self) { try operation.perform(on: &mine) }
            #expect(error?.code == .inUse, "\(operation) after \(other): \(String(describing: error))")
            #expect(file.bytes == made, "\(operation) after \(other)")
        }
    }

    @Test("Alone, one operation follows the other on the same open image", arguments: specimens)
    func alone(_ specimen: Specimen) throws {
        let file = SharedFile(specimen.bytes)
        var image = try Image(storage: SharedStorage(file: file))
        for operation in [Operation.create, .guestWrite, .repair, .applyAndSave, .guestWrite, .delete] {
            try operation.perform(on: &image)
            let bytes = file.bytes
            #expect(ConsistencyCount(bytes).findings.isEmpty, "\(operation)")
        }
    }
}
