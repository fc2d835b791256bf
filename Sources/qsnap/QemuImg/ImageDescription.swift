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

/// What `info` says about one image of a chain.
struct ImageDescription {
    let path: String
    private(set) var format = "raw"
    private(set) var virtualSize: UInt64 = 0
    /// Bytes that the file takes on its file system.
    private(set) var allocatedByteCount: UInt64 = 0
    /// The file's length, in whole sectors.
    private(set) var fileByteCount: UInt64 = 0
    private(set) var clusterSize: Int?
    private(set) var isEncrypted = false
    private(set) var isDirty = false
    private(set) var backing: BackingFile?
    private(set) var snapshots: [Snapshot] = []
    /// The members of the format's own object.
    private(set) var details: [(String, QemuJSON)] = []

    /// Opens an image for reading, and looks at it and nothing else.
    init(_ source: Source, _ version: QemuVersion) throws(Refusal) {
        path = source.path
        let disk = try source.open(forWriting: false)
        var status = stat()
        if unsafe stat(source.path, &status) == 0 {
            // Safe: neither number of a regular file is negative.
            allocatedByteCount = UInt64(status.st_blocks) * 512
            fileByteCount = (UInt64(status.st_size) + 511) / 512 * 512
        }
        switch disk {
        case .raw:
            format = source.format ?? "raw"
            virtualSize = fileByteCount
        case .qcow2(let image):
            do throws(QCOW2Error) {
                try describe(image, version)
            } catch {
                throw source.refusal("\(error.description)")
            }
        }
    }

    private mutating func describe(
        _ image: borrowing Image<FileStorage>, _ version: QemuVersion
    ) throws(QCOW2Error) {
        format = "qcow2"
        virtualSize = image.virtualSize / 512 * 512
        clusterSize = image.clusterSize
        isEncrypted = image.encryption != .none
        isDirty = image.incompatibleFeatures.contains(.dirty)
        backing = try image.backingFile()
        let hasDataFile = image.incompatibleFeatures.contains(.externalDataFile)
        if !hasDataFile { snapshots = image.snapshots }
        let isVersion3 = image.version == 3
        details = [
            ("compat", .string(isVersion3 ? "1.1" : "0.10")),
            ("compression-type", .string(image.compressionType == .zstd ? "zstd" : "zlib")),
        ]
        if isVersion3 {
            details.append(("lazy-refcounts", .bool(image.compatibleFeatures.contains(.lazyRefcounts))))
            let bitmaps = try image.bitmaps()
            if !bitmaps.isEmpty { details.append(("bitmaps", .array(bitmaps.map(Self.json)))) }
        }
        details.append(("refcount-bits", .number(Int64(image.refcountBits))))
        if hasDataFile, let name = image.externalDataFileNameBytes { details.append(("data-file", .string(name))) }
        switch image.encryption {
        case .none: break
        case .aes: details.append(("encrypt", .object([("format", .string("aes"))])))
        case .luks:
            if let header = try image.luksHeader() { details.append(("encrypt", Self.json(header, version))) }
        }
        if hasDataFile {
            details.append(("data-file-raw", .bool(image.autoclearFeatures.contains(.rawExternalData))))
        }
        if isVersion3 {
            details.append(("corrupt", .bool(image.incompatibleFeatures.contains(.corrupt))))
            details.append(("extended-l2", .bool(image.incompatibleFeatures.contains(.extendedL2))))
        }
    }

    private static func json(_ bitmap: Bitmap) -> QemuJSON {
        var flags: [QemuJSON] = []
        if bitmap.isInUse { flags.append(.string("in-use")) }
        if bitmap.isAutomatic { flags.append(.string("auto")) }
        return .object([
            ("flags", .array(flags)), ("name", .string(bitmap.nameBytes)),
            ("granularity", .number(Int64(clamping: bitmap.granularity))),
        ])
    }

    private static func json(_ header: LUKSHeader, _ version: QemuVersion) -> QemuJSON {
        // The mode is written with the generator of initial vectors, as in xts-plain64 or cbc-essiv:sha256.
        let mode = header.cipherMode.prefix { $0 != "-" }
        let generator = header.cipherMode.dropFirst(mode.count + 1)
        let ivgen = generator.prefix { $0 != ":" }
        // A key of XTS is two.
        let bits = Int(header.keyByteCount) * 8 / (mode == "xts" ? 2 : 1)
        var members: [(String, QemuJSON)] = [("ivgen-alg", .string(String(ivgen)))]
        if generator.count > ivgen.count {
            members.append(("ivgen-hash-alg", .string(String(generator.dropFirst(ivgen.count + 1)))))
        }
        if version >= .hasWideTable { members.append(("detached-header", .bool(false))) }
        let slots: [QemuJSON] = header.slots.map { slot in
            var members: [(String, QemuJSON)] = [("active", .bool(slot.isActive))]
            if slot.isActive { members.append(("iters", .number(Int64(slot.iterations)))) }
            members.append(("key-offset", .number(Int64(slot.keyOffset))))
            if slot.isActive { members.append(("stripes", .number(Int64(slot.stripes)))) }
            return .object(members)
        }
        members += [
            ("hash-alg", .string(header.hash)), ("cipher-alg", .string("\(header.cipherName)-\(bits)")),
            ("uuid", .string(header.uuid)), ("format", .string("luks")), ("cipher-mode", .string(String(mode))),
            ("slots", .array(slots)), ("payload-offset", .number(Int64(header.payloadOffset))),
            ("master-key-iters", .number(Int64(header.masterKeyIterations))),
        ]
        return .object(members)
    }

    /// Where the backing file's name leads, seen from this image.
    var backingPath: [UInt8]? {
        guard let name = backing?.nameBytes else { return nil }
        let slash = UInt8(ascii: "/")
        let hasProtocol = name.prefix { $0 != slash }.contains(UInt8(ascii: ":"))
        guard name.first != slash, !hasProtocol, let end = Array(path.utf8).lastIndex(of: slash) else { return name }
        return Array(path.utf8)[...end] + name
    }

    /// The JSON object, with the keys in qemu-img's order.
    func json(_ version: QemuVersion) -> QemuJSON {
        var members: [(String, QemuJSON)] = []
        if version >= .showsChildNodes {
            let file: [(String, QemuJSON)] = [
                ("children", .array([])), ("virtual-size", .number(Int64(clamping: fileByteCount))),
                ("filename", .string(path)), ("format", .string("file")),
                ("actual-size", .number(Int64(clamping: allocatedByteCount))),
                ("format-specific", .object([("type", .string("file")), ("data", .object([]))])),
                ("dirty-flag", .bool(false)),
            ]
            members.append(("children", .array([.object([("name", .string("file")), ("info", .object(file))])])))
        }
        if let format = backing?.formatBytes { members.append(("backing-filename-format", .string(format))) }
        if !snapshots.isEmpty { members.append(("snapshots", .array(snapshots.map(\.qemuJSON)))) }
        members.append(("virtual-size", .number(Int64(clamping: virtualSize))))
        members.append(("filename", .string(path)))
        if let clusterSize { members.append(("cluster-size", .number(Int64(clusterSize)))) }
        members.append(("format", .string(format)))
        members.append(("actual-size", .number(Int64(clamping: allocatedByteCount))))
        if !details.isEmpty {
            members.append(("format-specific", .object([("type", .string(format)), ("data", .object(details))])))
        }
        if let backingPath { members.append(("full-backing-filename", .string(backingPath))) }
        if isEncrypted { members.append(("encrypted", .bool(true))) }
        if let backing { members.append(("backing-filename", .string(backing.nameBytes))) }
        members.append(("dirty-flag", .bool(isDirty)))
        return .object(members)
    }

    /// The lines for people.
    func text(_ version: QemuVersion) -> ByteText {
        var text: ByteText = "image: \(path)\nfile format: \(format)\n"
        text += "virtual size: \(sizeText(virtualSize)) (\(virtualSize) bytes)\n"
        text += "disk size: \(sizeText(allocatedByteCount))\n"
        if isEncrypted { text += "encrypted: yes\n" }
        if let clusterSize { text += "cluster_size: \(clusterSize)\n" }
        if isDirty { text += "cleanly shut down: no\n" }
        if let backing, let backingPath {
            text += "backing file: \(backing.nameBytes)"
            if backingPath != backing.nameBytes { text += " (actual path: \(backingPath))" }
            text += "\n"
            if let format = backing.formatBytes { text += "backing file format: \(format)\n" }
        }
        text += snapshotTable(snapshots, version)
        if !details.isEmpty {
            text += "Format specific information:\n"
            text += QemuJSON.object(details).lines(indent: 1)
        }
        if version >= .showsChildNodes {
            text += "Child node '/file':\n    filename: \(path)\n    protocol type: file\n"
            text += "    file length: \(sizeText(fileByteCount)) (\(fileByteCount) bytes)\n"
            text += "    disk size: \(sizeText(allocatedByteCount))\n"
        }
        return text
    }
}

extension Snapshot {
    fileprivate var qemuJSON: QemuJSON {
        var members: [(String, QemuJSON)] = []
        if let icount { members.append(("icount", .number(Int64(bitPattern: icount)))) }
        members += [
            ("vm-clock-nsec", .number(Int64(vmClock % 1_000_000_000))), ("name", .string(shownName)),
            ("date-sec", .number(Int64(date.seconds))), ("date-nsec", .number(Int64(date.nanoseconds))),
            ("vm-clock-sec", .number(Int64(vmClock / 1_000_000_000))), ("id", .string(shownID)),
            ("vm-state-size", .number(Int64(bitPattern: vmStateSize))),
        ]
        return .object(members)
    }
}

extension QemuJSON {
    fileprivate static func string(_ text: Substring) -> QemuJSON { .string(Array(text.utf8)) }
}
