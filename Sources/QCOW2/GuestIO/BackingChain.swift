// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The files below an image, as far as they were allowed and could be opened.
struct BackingChain: Sendable {
    /// From the image's own backing file down.
    let layers: [ChainLayer]
    /// What lies below the last file: `nil` for nothing, which reads as zeros.
    let closed: ClosedBackingFile?
    /// The image itself, all files below it, and all that they name.
    let files: [NamedFile]

    /// The most backing files of a chain.
    static let maximumDepth = 200

    /// Opens the chain below an image.
    ///
    /// Never throws for a file that can't be opened: that is an error where its data is needed, and nowhere else.
    init(below image: borrowing Image<FileStorage>, _ policy: BackingFilePolicy) throws(QCOW2Error) {
        var layers: [ChainLayer] = []
        var identities = [try image.storage.identity()]
        var files = [NamedFile(open: image.storage.name, identities[0])] + (try image.namedFiles())
        var next = try image.backingFile().map { ($0, image.storage.name) }
        let access = image.storage.access == .readingWithoutLock ? image.storage.access : .reading
        var closed: ClosedBackingFile?
        while let (backingFile, imagePath) = next {
            next = nil
            do throws(QCOW2Error) {
                let request = try BackingFileRequest(
                    backingFile, of: imagePath, identities[layers.count], depth: layers.count + 1)
                guard policy.allows(request) else {
                    throw QCOW2Error(.backingFileNotAllowed, "opening it was not allowed")
                }
                let path = backingFile.path(from: imagePath)
                if let failure = request.failure { throw .system(failure, "Opening", path) }
                // The file that was allowed, and not where a link leads that is on the way by now.
                let storage = try FileStorage(followingNoLinksTo: request.path, called: path, for: access)
                let identity = try storage.identity()
                guard !identities.contains(identity) else {
                    throw QCOW2Error(.corrupt, "the file is already part of the chain")
                }
                identities.append(identity)
                files.append(NamedFile(open: path, identity))
                guard request.format == "qcow2" else {
                    layers.append(try ChainLayer(raw: storage))
                    continue
                }
                let opened = try Image(storage: storage)
                let below = try opened.backingFile()
                files += try opened.namedFiles()
                layers.append(try ChainLayer(opened))
                next = below.map { ($0, path) }
            } catch {
                closed = ClosedBackingFile(
                    name: escaped(backingFile.nameBytes), imagePath: imagePath, code: error.code,
                    reason: error.description)
            }
        }
        self.layers = layers
        self.closed = closed
        self.files = files
    }

    /// The chain below an image whose storage isn't a file of the operating system: closed, if there is one.
    init<S: Storage & ~Copyable>(closedBelow image: borrowing Image<S>) throws(QCOW2Error) {
        layers = []
        files = [NamedFile(open: image.storage.name, nil)] + (try image.namedFiles())
        guard let backingFile = try image.backingFile() else {
            closed = nil
            return
        }
        closed = ClosedBackingFile(
            name: escaped(backingFile.nameBytes), imagePath: image.storage.name, code: .backingFileNotAllowed,
            reason: "opening it was not allowed")
    }
}

/// A backing file that isn't open, and why.
struct ClosedBackingFile: Hashable, Sendable {
    let name: String
    let imagePath: String
    let code: QCOW2Error.Code
    let reason: String

    /// The error for whoever needs its data.
    func error(at guestOffset: UInt64) -> QCOW2Error {
        let reason = reason.hasSuffix(".") ? String(reason.dropLast()) : reason
        return QCOW2Error(
            code,
            "Guest offset \(GuestOffset(guestOffset)) is in the backing file '\(name)' of '\(imagePath)': \(reason).")
    }
}

extension ChainLayer {
    /// A file that is the disk.
    init(raw storage: consuming FileStorage) throws(QCOW2Error) {
        byteCount = try storage.byteCount()
        image = nil
        file = SharedFile(storage)
    }

    /// The active state of an image.
    fileprivate init(_ opened: consuming Image<FileStorage>) throws(QCOW2Error) {
        try opened.checkDataIsHere()
        let layer = try opened.layer(
            opened.tree(of: .active), L2SliceCache(in: opened.header.geometry, byteCount: L2SliceCache.defaultByteCount)
        )
        byteCount = opened.virtualSize
        image = layer
        file = SharedFile(opened.close())
    }
}

/// A file that several threads read.
private final class SharedFile: ReadableFile {
    private let storage: FileStorage

    init(_ storage: consuming FileStorage) { self.storage = storage }

    var name: String { storage.name }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try storage.read(into: &buffer, at: offset)
    }

    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? { try storage.dataRange(in: range) }
}

extension BackingFile {
    /// Where the name leads, seen from the image that holds it.
    fileprivate func path(from imagePath: String) -> String {
        directoryOfFile(imagePath).map { path(inDirectory: $0) } ?? name
    }

    fileprivate func path(inDirectory directory: String) -> String {
        name.hasPrefix("/") ? name : "\(directory)/\(name)"
    }
}

extension BackingFileRequest {
    /// Checks all that can be checked without opening the file.
    fileprivate init(
        _ backingFile: BackingFile, of imagePath: String, _ image: FileStorage.Identity, depth: Int
    ) throws(QCOW2Error) {
        guard depth <= BackingChain.maximumDepth else {
            throw QCOW2Error(.limitExceeded, "the chain has more than \(BackingChain.maximumDepth) files")
        }
        let name = backingFile.name
        guard name.utf8.elementsEqual(backingFile.nameBytes), !backingFile.nameBytes.contains(0) else {
            throw QCOW2Error(.unsupported, "its name isn't valid text")
        }
        let start = name.utf8.prefix { $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: "/") }
        if start.endIndex < name.endIndex, name.utf8[start.endIndex] == UInt8(ascii: ":") {
            throw QCOW2Error(.unsupported, "names of the kind '\(escaped(start)):' are not opened, only plain paths")
        }
        guard let format = backingFile.format else {
            throw QCOW2Error(.unsupported, "the image doesn't say which format it has, and guessing isn't safe")
        }
        guard format == "raw" || format == "qcow2" else {
            throw QCOW2Error(.unsupported, "its format '\(escaped(format.utf8))' isn't read, only raw and qcow2")
        }
        let directory = Self.directory(of: imagePath, image)
        guard let path = directory.map({ backingFile.path(inDirectory: $0) }) ?? (name.hasPrefix("/") ? name : nil)
        else {
            throw QCOW2Error(
                .backingFileNotAllowed, "'\(imagePath)' is another file by now, so nobody knows what is beside it")
        }
        let resolved = canonicalPath(path)
        self.init(
            name: name, format: format, path: resolved ?? path, imagePath: imagePath, depth: depth,
            imageDirectory: directory, failure: resolved == nil ? .last : nil)
    }

    /// The directory that holds the open image, or the link by which it was opened.
    ///
    /// Its path may have come to lead elsewhere since; so the file that is there must be the image.
    private static func directory(of imagePath: String, _ image: FileStorage.Identity) -> String? {
        let parent = directoryOfFile(imagePath)
        guard let directory = canonicalPath(parent ?? ".") else { return nil }
        let name = imagePath.dropFirst(parent.map { "\($0)/".count } ?? 0)
        return FileStorage.Identity(path: "\(directory)/\(name)") == image ? directory : nil
    }
}
