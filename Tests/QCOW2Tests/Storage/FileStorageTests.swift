// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import Synchronization
import TestTools
import Testing

@testable import QCOW2

/// What a file of the operating system owes beyond the contract of all storages.
@Suite struct FileStorageTests {
    private func makeFile() throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try Data([UInt8](repeating: 7, count: 4096)).write(to: URL(fileURLWithPath: folder.file("bytes")))
        return folder
    }

    @Test("No program that is started gets the descriptor", arguments: [FileStorage.Access.reading, .writing])
    func closeOnExec(_ access: FileStorage.Access) throws {
        let folder = try makeFile()
        let calls = FaultyCalls()
        let file = try SystemFile(path: folder.file("bytes"), for: access, calls: calls)
        let descriptor = try #require(calls.script.state.withLock { $0.descriptors.first })
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
        #expect((fcntl(descriptor, F_GETFL) & O_ACCMODE) == (access == .writing ? O_RDWR : O_RDONLY))
        #expect(try file.byteCount() == 4096)
    }

    /// How a file is kept from others where calls for locking fail.
    private func locking(
        _ path: String, _ access: FileStorage.Access, _ locks: Int32?, _ wholeLocks: Int32? = nil,
        _ requirement: FileStorage.LockRequirement = .forWriting
    ) throws -> FileStorage.Locking {
        let calls = FaultyCalls()
        calls.script.state.withLock { ($0.locks, $0.wholeLocks) = (locks, wholeLocks) }
        return try SystemFile(path: path, for: access, locks: requirement, calls: calls).locking
    }

    static let noLocks = [EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP, ENOTSUP]

    @Test("Without locks on bytes an advisory one is taken, and keeps others of ours out")
    func advisory() throws {
        let folder = try makeFile()
        let path = folder.file("bytes")
        #if os(Linux)
            #expect(try locking(path, .writing, nil) == .byteRanges)
            #expect(try locking(path, .reading, nil) == .byteRanges)
        #endif
        #expect(try locking(path, .readingWithoutLock, nil) == .none)
        for number in Self.noLocks {
            #expect(try locking(path, .writing, number, nil, .ifAvailable) == .advisory)
            #expect(try locking(path, .reading, number) == .advisory)
            #expect(try locking(path, .writing, number, number, .ifAvailable) == .unavailable)
            #expect(try locking(path, .reading, number, number) == .unavailable)
        }
        let calls = FaultyCalls()
        calls.script.state.withLock { $0.locks = EINVAL }
        let reader = try SystemFile(path: path, for: .reading, calls: calls)
        #expect(try locking(path, .reading, EINVAL) == .advisory)
        let error = #expect(throws: QCOW2Error.self) { try locking(path, .writing, EINVAL, nil, .ifAvailable) }
        #expect(error?.code == .inUse)
        #expect(reader.locking == .advisory)
    }

    #if os(Linux)
        @Test("Without locks that QEMU sees no file is written, and a new one is removed", arguments: noLocks)
        func required(_ number: Int32) throws {
            let folder = try makeFile()
            let path = folder.file("bytes")
            for wholeLocks in [nil, number] {
                let error = #expect(throws: QCOW2Error.self) { try locking(path, .writing, number, wholeLocks) }
                #expect(error?.code == .locksUnavailable && (error?.cause as? SystemError)?.number == number)
                #expect(error?.message.contains("'\(path)' can't be locked") == true)
            }
            let calls = FaultyCalls()
            calls.script.state.withLock { $0.locks = number }
            let error = #expect(throws: QCOW2Error.self) {
                _ = try SystemFile(path: folder.file("new"), for: .writing, isNew: true, calls: calls)
            }
            #expect(error?.code == .locksUnavailable)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["bytes"])
        }
    #endif

    @Test("A lock that fails is an error, whoever asks for it, and neither 'in use' nor 'no locks'")
    func failing() throws {
        let folder = try makeFile()
        let path = folder.file("bytes")
        for number in [EIO, EACCES, EDEADLK, ENOMEM] {
            for access in [FileStorage.Access.reading, .writing] {
                for requirement in [FileStorage.LockRequirement.forWriting, .ifAvailable] {
                    for (locks, wholeLocks) in [(number, nil), (ENOLCK, number)] as [(Int32, Int32?)] {
                        let error = #expect(throws: QCOW2Error.self) {
                            try locking(path, access, locks, wholeLocks, requirement)
                        }
                        #expect(error?.code == .inputOutput && (error?.cause as? SystemError)?.number == number)
                        #expect(error?.message.hasPrefix("Locking '\(path)' failed") == true)
                    }
                }
            }
        }
    }

    @Test("Locks end with the value, and a new one may follow at once")
    func release() throws {
        let folder = try makeFile()
        for _ in 0..<20 {
            let file = try FileStorage(path: folder.file("bytes"), for: .writing)
            let error = #expect(throws: QCOW2Error.self) {
                _ = try FileStorage(path: folder.file("bytes"), for: .reading)
            }
            #expect(error?.code == .inUse)
            _ = consume file
        }
    }
}
