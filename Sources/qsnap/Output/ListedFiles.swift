// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The files of a list of images, opened before any is read, as far as there are not too many.
struct ListedFiles {
    /// An open file that somebody will take.
    private final class Box {
        private var storage: FileStorage?

        init(_ storage: consuming FileStorage) { self.storage = consume storage }

        func take() -> FileStorage? { storage.take() }
    }

    /// More than these are opened one by one, which a limit on open files asks for.
    private static let limit = 64

    private let access: FileStorage.Access
    private var opened: [Result<Box, QCOW2Error>]
    /// What must still be opened.
    let laterOpening: Sandbox.Opening

    init(_ paths: [String], _ access: FileStorage.Access) {
        self.access = access
        guard paths.count <= Self.limit else {
            opened = []
            laterOpening = .files(paths)
            return
        }
        laterOpening = .nothing
        opened = []
        for path in paths.reversed() {
            do throws(QCOW2Error) {
                opened.append(.success(Box(try FileStorage(path: path, for: access))))
            } catch {
                opened.append(.failure(error))
            }
        }
    }

    /// The next file of the list, which is at `path`.
    mutating func next(_ path: String) throws(QCOW2Error) -> FileStorage {
        guard let result = opened.popLast() else { return try FileStorage(path: path, for: access) }
        if let storage = try result.get().take() { return storage }
        return try FileStorage(path: path, for: access)
    }
}
