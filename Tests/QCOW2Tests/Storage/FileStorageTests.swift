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

    @Test("Without locks on bytes an advisory one is taken, and keeps others of ours out")
    func advisory() throws {
        let folder = try makeFile()
        let path = folder.file("bytes")
        func open(_ access: FileStorage.Access, _ locks: Int32?, _ wholeLocks: Int32? = nil) throws
            -> FileStorage.Locking
        {
            let calls = FaultyCalls()
            calls.script.state.withLock { ($0.locks, $0.wholeLocks) = (locks, wholeLocks) }
            return try SystemFile(path: path, for: access, calls: calls).locking
        }
        #if os(Linux)
            #expect(try open(.writing, nil) == .byteRanges)
            #expect(try open(.reading, nil) == .byteRanges)
        #endif
        #expect(try open(.readingWithoutLock, nil) == .none)
        for number in [EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP] {
            #expect(try open(.writing, number) == .advisory)
            #expect(try open(.reading, number) == .advisory)
            #expect(try open(.writing, number, ENOLCK) == .unavailable)
        }
        let calls = FaultyCalls()
        calls.script.state.withLock { $0.locks = EINVAL }
        let reader = try SystemFile(path: path, for: .reading, calls: calls)
        #expect(try open(.reading, EINVAL) == .advisory)
        let error = #expect(throws: QCOW2Error.self) { try open(.writing, EINVAL) }
        #expect(error?.code == .inUse)
        #expect(reader.locking == .advisory)
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
