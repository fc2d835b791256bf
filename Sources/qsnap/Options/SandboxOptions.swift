// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

/// How a command that only reads shuts itself in.
struct SandboxOptions: ParsableArguments {
    @Flag(
        name: .customLong("no-sandbox"),
        help: "Keep the rights to open files and start programs, for systems where giving them up fails.")
    var isOff = false

    @Flag(
        name: .shortAndLong,
        help: """
            Say on standard error how other programs are kept out of the image, and what of the sandbox the kernel \
            refuses.
            """)
    var verbose = false

    /// Opens a file for reading, and then gives up what reading it doesn't need.
    ///
    /// - Parameters:
    ///   - path: The image.
    ///   - sharesByForce: Whether to read it without a lock.
    ///   - backing: Which of its backing files may be opened later; `nil` for none.
    /// - Returns: The file, of which nothing has been read but whether it names a backing file.
    /// - Throws: What ``FileStorage/init(path:for:locks:)`` throws.
    func open(
        _ path: String, sharesByForce: Bool, backing: Sandbox.Opening? = nil
    ) throws(QCOW2Error) -> FileStorage {
        let storage = try FileStorage(path: path, for: sharesByForce ? .readingWithoutLock : .reading)
        if let backing, Self.namesBackingFile(storage) { enter(backing) } else { enter(.nothing) }
        return storage
    }

    /// Gives up all but opening some files.
    func enter(_ opening: Sandbox.Opening) {
        guard !isOff else { return }
        let missing = Sandbox.enter(opening)
        guard verbose else { return }
        for sentence in missing { Console.writeError("qsnap: \(sentence).\n") }
    }

    /// Whether the header's field for the backing file's name isn't zero: all that is looked at outside the sandbox.
    private static func namesBackingFile(_ storage: borrowing FileStorage) -> Bool {
        var field = [UInt8](repeating: 0, count: 8)
        var span = field.mutableSpan
        do throws(QCOW2Error) {
            try storage.read(into: &span, at: HostOffset(8))
        } catch {
            return false
        }
        return field.contains { $0 != 0 }
    }
}
