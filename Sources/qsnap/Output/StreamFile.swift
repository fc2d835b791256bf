// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A stream on its way to standard output, or to a file that gets its name when it is complete.
///
/// Until then the file has another name in the same directory, and is removed when this value goes away; only a kill
/// leaves it.
struct StreamFile: ~Copyable {
    private let path: String
    private let unfinishedPath: String
    private let descriptor: Int32
    private var isFinished = false
    /// What wasn't written yet.
    private var pending: [UInt8] = []

    private var isFile: Bool { descriptor != 1 }

    /// Opens the stream; `-` is standard output.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``, also when there is a file with that name already.
    init(_ path: String) throws(QCOW2Error) {
        let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")).map { path.utf8.index(after: $0) } ?? path.startIndex
        let unfinishedPath = "\(path[..<slash]).\(path[slash...]).qsnap-\(getpid())"
        descriptor = path == "-" ? 1 : try Self.create(unfinishedPath, for: path)
        self.path = path
        self.unfinishedPath = unfinishedPath
    }

    private static func create(_ unfinishedPath: String, for path: String) throws(QCOW2Error) -> Int32 {
        var status = stat()
        guard unsafe lstat(path, &status) != 0 else { throw QCOW2Error(.inputOutput, "'\(path)' is there already.") }
        let descriptor = unsafe open(unfinishedPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(0o666))
        guard descriptor >= 0 else { throw failure("Creating", path) }
        return descriptor
    }

    deinit {
        guard isFile else { return }
        _ = close(descriptor)
        if !isFinished { _ = unsafe unlink(unfinishedPath) }
    }

    private static func failure(_ verb: String, _ path: String) -> QCOW2Error {
        let name = path == "-" ? "standard output" : "'\(path)'"
        return QCOW2Error(.inputOutput, unsafe "\(verb) \(name) failed: \(String(cString: strerror(errno))).")
    }

    /// Adds to the stream.
    mutating func write(_ bytes: Span<UInt8>) throws(QCOW2Error) {
        // SAFETY: the bytes are copied while the span is valid.
        unsafe bytes.withUnsafeBufferPointer { unsafe pending.append(contentsOf: $0) }
        if pending.count >= 1 << 18 { try flush() }
    }

    private mutating func flush() throws(QCOW2Error) {
        let bytes = pending
        pending.removeAll(keepingCapacity: true)
        var done = 0
        while done < bytes.count {
            // SAFETY: the range is inside the array, which outlives the call.
            let result = unsafe bytes.withUnsafeBytes { buffer in
                let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[done...])
                #if canImport(Darwin)
                    return unsafe Darwin.write(descriptor, rest.baseAddress, rest.count)
                #elseif canImport(Glibc)
                    return unsafe Glibc.write(descriptor, rest.baseAddress, rest.count)
                #else
                    return unsafe Musl.write(descriptor, rest.baseAddress, rest.count)
                #endif
            }
            if result >= 0 { done += result } else if errno != EINTR { throw Self.failure("Writing", path) }
        }
    }

    /// Writes what is left, waits until a file is on stable storage, and gives it its name.
    mutating func finish() throws(QCOW2Error) {
        try flush()
        guard isFile else { return }
        guard fsync(descriptor) == 0 else { throw Self.failure("Flushing", path) }
        guard unsafe rename(unfinishedPath, path) == 0 else { throw Self.failure("Naming", path) }
        isFinished = true
    }
}
