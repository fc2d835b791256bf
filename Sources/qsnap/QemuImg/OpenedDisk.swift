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

/// An open image, or a file without a format that this program reads snapshots from.
enum OpenedDisk: ~Copyable {
    case qcow2(Image<FileStorage>)
    /// Any other bytes.
    case raw(FileStorage)
}

/// An open file, and what its first bytes say.
private struct OpenedFile: ~Copyable {
    let storage: FileStorage
    let start: ImageStart
}

extension Source {
    /// Formats that qemu-img knows and this program doesn't.
    static let otherFormats: Set<String> = [
        "blkdebug", "blklogwrites", "blkverify", "bochs", "cloop", "compress", "copy-before-write", "copy-on-read",
        "dmg", "ftp", "ftps", "gluster", "host_cdrom", "host_device", "http", "https", "iscsi", "iser", "luks", "nbd",
        "nfs", "null-aio", "null-co", "nvme", "parallels", "preallocate", "qcow", "qed", "quorum", "rbd", "replication",
        "ssh", "throttle", "vdi", "vhdx", "vmdk", "vpc", "vvfat",
    ]

    /// Checks the format that was asked for, as qemu-img does before it opens the file.
    func checkFormat() throws(Refusal) {
        guard let format, !["qcow2", "raw", "file"].contains(format) else { return }
        guard Self.otherFormats.contains(format) else { throw refusal("Unknown driver '\(format)'") }
        throw refusal("the format '\(format)' isn't supported by qsnap")
    }

    /// Opens the file as qemu-img would, with its messages.
    ///
    /// - Parameters:
    ///   - isWriting: For writing, alone; otherwise while nobody writes, or whatever others do with `-U`.
    ///   - warns: Whether to warn when a format that wasn't given turns out to be none.
    /// - Returns: The open image or file.
    /// - Throws: ``Refusal``.
    func open(forWriting isWriting: Bool, warns: Bool? = nil) throws(Refusal) -> OpenedDisk {
        let opened = try openFile(forWriting: isWriting) { error in
            refusal("Could not read image for determining its format: \(error.systemReason)")
        }
        switch format ?? opened.start.format {
        case "qcow2": return .qcow2(try openImage(opened.storage, opened.start, forWriting: isWriting))
        case "raw", "file":
            if format == nil, warns ?? isWriting { warnAboutRaw() }
            return .raw(opened.storage)
        case let other: throw refusal("the format '\(other)' isn't supported by qsnap")
        }
    }

    /// Opens the file and reads its start.
    private func openFile(
        forWriting isWriting: Bool, _ unreadable: (QCOW2Error) -> Refusal
    ) throws(Refusal) -> OpenedFile {
        try checkFormat()
        if isWriting, sharesByForce == true, !isReadOnly {
            throw refusal("force-share=on can only be used with read-only images")
        }
        if let problem { throw refusal(problem) }
        if isWriting, isReadOnly { throw refusal("Block node is read-only") }
        let access: FileStorage.Access =
            isWriting ? .writing : sharesByForce == true || !takesLocks ? .readingWithoutLock : .reading
        let storage: FileStorage
        do throws(QCOW2Error) {
            storage = try FileStorage(path: path, for: access, locks: takesLocks ? .forWriting : .ifAvailable)
        } catch {
            throw opening(error)
        }
        do throws(QCOW2Error) {
            let start = try ImageStart(reading: storage)
            return OpenedFile(storage: storage, start: start)
        } catch {
            throw unreadable(error)
        }
    }

    private func openImage(
        _ storage: consuming FileStorage, _ start: ImageStart, forWriting isWriting: Bool
    ) throws(Refusal) -> Image<FileStorage> {
        guard start.format == "qcow2" else {
            throw refusal("\(start.versionComplaint ?? "Image is not in qcow2 format")")
        }
        let image: Image<FileStorage>
        do throws(QCOW2Error) {
            image = try Image(storage: storage)
        } catch {
            throw refusal("\(start.complaint ?? error.description)")
        }
        if isWriting, image.incompatibleFeatures.contains(.corrupt) {
            throw refusal("qcow2: Image is corrupt; cannot be opened read/write")
        }
        guard isWriting, image.incompatibleFeatures.contains(.dirty) else { return image }
        return try repairDirty(image)
    }

    /// Repairs an image whose last writer didn't end properly, as qemu-img does before it acts on one.
    ///
    /// The findings are said on standard error. What can't be repaired leaves the mark, and the image is refused.
    private func repairDirty(_ image: consuming Image<FileStorage>) throws(Refusal) -> Image<FileStorage> {
        let repaired: Image<FileStorage>
        do throws(QCOW2Error) {
            var suspect = try SuspectImage(storage: image.close())
            try suspect.repair(.all, discardingRemnants: true, options: options, found: QemuImg.say(_:))
            repaired = try Image(storage: suspect.close())
        } catch {
            throw refusal("Could not repair dirty image: \(error.systemReason)")
        }
        guard !repaired.incompatibleFeatures.contains(.dirty) else {
            throw refusal("Could not repair dirty image: not all that is wrong can be repaired")
        }
        return repaired
    }

    /// Opens the file for a check, which looks further than others into a damaged image.
    func openForCheck(repairing isRepairing: Bool) throws(Refusal) -> SuspectImage<FileStorage> {
        let opened = try openFile(forWriting: isRepairing, opening(_:))
        switch format ?? opened.start.format {
        case "qcow2": break
        case "raw", "file":
            if format == nil, isRepairing { warnAboutRaw() }
            throw Refusal("This image format does not support checks", status: 63)
        case let other: throw refusal("the format '\(other)' isn't supported by qsnap")
        }
        guard opened.start.format == "qcow2" else {
            throw refusal("\(opened.start.versionComplaint ?? "Image is not in qcow2 format")")
        }
        do throws(QCOW2Error) {
            return try SuspectImage(storage: opened.storage)
        } catch {
            throw refusal("\(opened.start.complaint ?? error.description)")
        }
    }

    /// Says that the file has no format; three lines of standard error.
    func warnAboutRaw() {
        Console.writeError(
            """
            WARNING: Image format was not specified for '\(path)' and probing guessed raw.
                     Automatically detecting the format is dangerous for raw images, write operations on block 0 will be \
            restricted.
                     Specify the 'raw' format explicitly to remove the restrictions.

            """ as ByteText)
    }

    /// The failure to open the file, in QEMU's words.
    func opening(_ error: QCOW2Error) -> Refusal {
        if let conflict = error.cause as? LockConflict {
            if conflict.isExclusive { return refusal("Failed to lock byte \(conflict.byte)") }
            let names = ["consistent read", "write", "write unchanged", "resize"]
            let name = names[conflict.byte % 100 % names.count]
            let kind = conflict.byte < 200 ? "shared " : ""
            return refusal(
                "Failed to get \(kind)\"\(name)\" lock", then: ["Is another process using the image [\(path)]?\n"])
        }
        if error.code == .inUse || error.code == .fileExists { return refusal("\(error.description)") }
        if error.code == .locksUnavailable { return refusal("Failed to lock byte 100: \(error.systemReason)") }
        guard error.cause != nil else { return refusal("'file' driver requires '\(path)' to be a regular file") }
        return refusal("Could not open '\(path)': \(error.systemReason)")
    }
}

extension QCOW2Error {
    /// The operating system's words for it, or the library's own.
    var systemReason: String { (cause as? SystemError)?.description ?? description }
}

extension SystemError {
    /// Whether there is a file of that name already.
    var isExistingFile: Bool { number == EEXIST }
}
