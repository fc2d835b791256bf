// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The error that everything in this library throws.
///
/// Programs act on ``code``; people read ``message``, which is one or two whole sentences.
public struct QCOW2Error: Error, Sendable {
    /// The kind of failure.
    public var code: Code
    /// What went wrong, with the names and numbers in it.
    public var message: String
    /// Where in the image file, in bytes from its start, if the failure has a place.
    public var offset: HostOffset?
    /// The failure underneath, such as a system call's error.
    public var cause: (any Error)?

    /// An error, for implementations of ``Storage`` outside this library.
    public init(_ code: Code, _ message: String, at offset: HostOffset? = nil, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.offset = offset
        self.cause = cause
    }

    /// A kind of failure; not an enum, so that adding one is not a breaking change.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Wrapped: String {
            case notQCOW2, corrupt, needsRepair, unsupported, inputOutput, inUse, readOnly
            case noSuchSnapshot, ambiguousSnapshot, invalidName, nameInUse, limitExceeded, activeBitmaps, cancelled
            case wouldLoseData
            case backingFileNotAllowed, outsideDisk, fileExists, locksUnavailable, outOfMemory
        }
        private let wrapped: Wrapped

        /// The file doesn't start with the magic number of qcow2.
        public static var notQCOW2: Self { Self(wrapped: .notQCOW2) }
        /// The image contradicts itself or the specification.
        public static var corrupt: Self { Self(wrapped: .corrupt) }
        /// The image carries the dirty or the corrupt bit, and is not written before a repair.
        public static var needsRepair: Self { Self(wrapped: .needsRepair) }
        /// The image uses a feature that this library doesn't know or doesn't write.
        public static var unsupported: Self { Self(wrapped: .unsupported) }
        /// Opening, reading, writing or flushing the image file failed.
        public static var inputOutput: Self { Self(wrapped: .inputOutput) }
        /// Another process has the image open in a way that excludes this use.
        public static var inUse: Self { Self(wrapped: .inUse) }
        /// The file is on a system or a file system without locks that others see, and was to be opened for writing.
        public static var locksUnavailable: Self { Self(wrapped: .locksUnavailable) }
        /// The image was opened for reading, and the operation writes.
        public static var readOnly: Self { Self(wrapped: .readOnly) }
        /// No snapshot has that ID or name.
        public static var noSuchSnapshot: Self { Self(wrapped: .noSuchSnapshot) }
        /// More than one snapshot could be meant.
        public static var ambiguousSnapshot: Self { Self(wrapped: .ambiguousSnapshot) }
        /// A new snapshot can't have this name.
        public static var invalidName: Self { Self(wrapped: .invalidName) }
        /// Another snapshot has this name already.
        public static var nameInUse: Self { Self(wrapped: .nameInUse) }
        /// The new state would exceed a limit of the format, such as the largest refcount.
        public static var limitExceeded: Self { Self(wrapped: .limitExceeded) }
        /// The disk would become smaller, and the caller didn't say that this may lose data.
        public static var wouldLoseData: Self { Self(wrapped: .wouldLoseData) }
        /// The image holds bitmaps, which changing the disk at once would make wrong.
        public static var activeBitmaps: Self { Self(wrapped: .activeBitmaps) }
        /// The data is in a backing file that the caller's ``BackingFilePolicy`` doesn't allow to be opened.
        public static var backingFileNotAllowed: Self { Self(wrapped: .backingFileNotAllowed) }
        /// The range isn't inside the disk.
        public static var outsideDisk: Self { Self(wrapped: .outsideDisk) }
        /// A new file can't have a name that another file has.
        public static var fileExists: Self { Self(wrapped: .fileExists) }

        /// The system refused memory; nothing is wrong with the image.
        public static var outOfMemory: Self { Self(wrapped: .outOfMemory) }

        /// The caller wanted the operation to stop; nothing changed.
        public static var cancelled: Self { Self(wrapped: .cancelled) }

        /// The code's name, stable enough for logs and JSON.
        public var description: String { wrapped.rawValue }
    }
}

extension QCOW2Error: CustomStringConvertible {
    /// The message, and the offset when it is known.
    public var description: String {
        guard let offset else { return message }
        return "\(message) (at offset \(offset))"
    }
}

extension QCOW2Error {
    static func notQCOW2() -> Self {
        Self(.notQCOW2, "The file is not a qcow2 image: it doesn't start with the magic number.", at: HostOffset(0))
    }

    static func truncated(_ structure: String, needed: Int, have: Int, at offset: HostOffset) -> Self {
        Self(.corrupt, "The \(structure) needs \(needed) bytes; the file has \(have).", at: offset)
    }

    /// A field whose value the specification forbids.
    static func invalid(_ field: String, _ why: String, at offset: HostOffset) -> Self {
        Self(.corrupt, "The field \(field) is invalid: \(why).", at: offset)
    }

    static func outOfRange<T: BinaryInteger>(
        _ field: String, _ value: T, _ range: ClosedRange<T>, at offset: HostOffset
    ) -> Self {
        invalid(field, "\(value) is outside \(range.lowerBound) to \(range.upperBound)", at: offset)
    }

    static func misaligned(_ field: String, _ value: HostOffset, at offset: HostOffset) -> Self {
        invalid(field, "\(value) is not a multiple of the cluster size", at: offset)
    }

    static func beyondEnd(_ field: String, _ value: HostOffset, at offset: HostOffset) -> Self {
        invalid(field, "what it points to at \(value) reaches past the end of the file", at: offset)
    }

    static func reservedBits(_ field: String, _ value: UInt64, at offset: HostOffset) -> Self {
        invalid(field, "reserved bits are set in 0x\(String(value, radix: 16))", at: offset)
    }

    static func overflow(_ what: String, at offset: HostOffset? = nil) -> Self {
        Self(.corrupt, "The \(what) is too large for any file.", at: offset)
    }
}
