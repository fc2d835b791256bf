// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img convert`, to raw files.
    ///
    /// A snapshot is written at its own size, where qemu-img cuts it or pads it to the active disk's.
    static func convert(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var (format, outputFormat) = ([UInt8]?.none, "raw")
        var snapshot: [UInt8]?
        var sparseByteCount: UInt64 = 4096
        var (keepsTarget, compresses, sharesByForce) = (false, false, false)
        var refused: String?
        var hasOptionList = false
        let parsed = try operands(
            words, context, short: "hf:O:B:Cco:l:S:pt:T:qnm:WUr:",
            long: [
                GetoptLong.LongOption("force-share", as: "U"), GetoptLong.LongOption("target-image-opts"),
                GetoptLong.LongOption("salvage"), GetoptLong.LongOption("target-is-zero"),
                GetoptLong.LongOption("bitmaps"), GetoptLong.LongOption("skip-broken-bitmaps"),
            ]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": format = argument
            case "O": outputFormat = String(decoding: argument, as: UTF8.self)
            case "l": snapshot = argument
            case "c": compresses = true
            case "n": keepsTarget = true
            case "U": sharesByForce = true
            case "o": hasOptionList = true
            case "S":
                sparseByteCount = try SizeArgument(parsing: argument).number(
                    "buffer size for sparse output", argument, context.version)
                guard sparseByteCount % 512 == 0, sparseByteCount <= 16 << 20 else {
                    throw Refusal(
                        """
                        Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
                        16777216. Select 0 to disable sparse detection (fully allocates output).
                        """)
                }
            // How qemu-img goes about it, which changes nothing of the result.
            case "p", "q", "t", "T", "m", "W", "C", "r": return
            case "B": refused = "-B"
            default: refused = "--\(option)"
            }
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        guard operands.count >= 2, let target = operands.last else {
            throw Refusal("Must specify image file name")
        }
        if let refused { throw Refusal("convert \(refused) isn't supported by qsnap") }
        guard operands.count == 2 else {
            if snapshot != nil { throw Refusal("No support for concatenating multiple snapshot") }
            throw Refusal("concatenating images isn't supported by qsnap")
        }
        let source = try Source(operands[0], format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
        let disk = try ConvertedDisk(source, snapshot: snapshot)
        guard outputFormat == "raw" else {
            guard outputFormat == "qcow2" || Source.otherFormats.contains(outputFormat) else {
                throw Refusal("Unknown file format '\(outputFormat)'")
            }
            throw Refusal("converting to the format '\(outputFormat)' isn't supported by qsnap")
        }
        if compresses { throw Refusal("Compression not supported for this file format") }
        if hasOptionList { throw Refusal("convert -o isn't supported by qsnap for raw files") }
        try disk.write(to: target, keepsTarget: keepsTarget, skipsZeros: sparseByteCount > 0)
        return 0
    }
}

/// One state of a disk, to be written to a file.
private struct ConvertedDisk {
    private let view: DiskView
    private let byteCount: UInt64

    /// Opens an image, and finds the state by `ID_OR_NAME` or `snapshot.id=...,snapshot.name=...`.
    init(_ source: Source, snapshot word: [UInt8]?) throws(Refusal) {
        guard let reader = try source.openReader() else {
            guard word == nil else {
                throw Refusal(
                    """
                    Failed to load snapshot: Block format 'raw' used by device '' does not support temporarily \
                    loading internal snapshots
                    """)
            }
            throw source.refusal("converting a file without a format isn't supported by qsnap")
        }
        let snapshots = reader.image.snapshots
        let index = try word.map { word throws(Refusal) in
            guard let index = try Self.index(of: word, in: snapshots) else {
                throw Refusal("Failed to load snapshot: Can't find snapshot")
            }
            return index
        }
        do throws(QCOW2Error) {
            view = if let index { try reader.view(ofSnapshotAt: index) } else { try reader.view() }
        } catch {
            throw source.refusal("\(error.systemReason)")
        }
        byteCount = view.virtualSize / 512 * 512
    }

    private static func index(of word: [UInt8], in snapshots: [Snapshot]) throws(Refusal) -> Int? {
        guard word.starts(with: "snapshot.".utf8) else {
            return snapshots.firstIndex { $0.shownID == word } ?? snapshots.firstIndex { $0.shownName == word }
        }
        var (id, name) = ([UInt8]?.none, [UInt8]?.none)
        for (key, value) in Source.options(in: String(decoding: word, as: UTF8.self)) {
            switch key {
            case "snapshot.id": id = Array(value.utf8)
            case "snapshot.name": name = Array(value.utf8)
            default:
                throw Refusal(
                    "Invalid parameter '\(key)'",
                    then: ["qemu-img: Failed in parsing snapshot param '\(word)'\n"])
            }
        }
        return snapshots.firstIndex {
            (id == nil || $0.shownID == id) && (name == nil || $0.shownName == name)
        }
    }

    /// Writes the disk to a file, new or over an old one.
    func write(to target: [UInt8], keepsTarget: Bool, skipsZeros: Bool) throws(Refusal) {
        let source = try Source(target, hasOptions: false, sharesByForce: false)
        var file = try Self.open(source, isNew: !keepsTarget)
        do throws(QCOW2Error) {
            let oldByteCount = try file.byteCount()
            if keepsTarget, oldByteCount < byteCount { throw QCOW2Error(.limitExceeded, "") }
            if !keepsTarget { try file.truncate(toByteCount: byteCount) }
            var cursor = view.extents()
            while let extent = try cursor.next() {
                let isZero = extent.kind == .zero || extent.kind == .unallocated
                // A new file reads as zeros where nothing is written.
                if isZero, skipsZeros, !keepsTarget { continue }
                var offset = extent.start.rawValue
                while offset < min(extent.end.rawValue, byteCount) {
                    let count = Int(min(1 << 20, min(extent.end.rawValue, byteCount) - offset))
                    let bytes =
                        isZero ? [UInt8](repeating: 0, count: count) : try view.read(count, at: GuestOffset(offset))
                    try Self.write(bytes, at: offset, to: &file, skipsZeros: skipsZeros && !keepsTarget)
                    offset += UInt64(count)
                }
            }
            try file.flush()
        } catch {
            if error.code == .limitExceeded { throw Refusal("output file is smaller than input file") }
            throw Refusal("error while converting: \(error.systemReason)")
        }
    }

    /// Writes what isn't zero, in pieces of 4 KiB.
    private static func write(
        _ bytes: [UInt8], at offset: UInt64, to file: inout FileStorage, skipsZeros: Bool
    ) throws(QCOW2Error) {
        guard skipsZeros else { return try file.write(bytes.span, at: HostOffset(offset)) }
        var position = 0
        while position < bytes.count {
            func end(_ start: Int) -> Int { min(start + 4096, bytes.count) }
            func isZero(_ start: Int) -> Bool { bytes[start..<end(start)].allSatisfy { $0 == 0 } }
            var stop = position
            while stop < bytes.count, !isZero(stop) { stop = end(stop) }
            if stop > position {
                try file.write(
                    bytes.span.extracting(position..<stop), at: HostOffset(offset + UInt64(position)))
            }
            position = stop < bytes.count ? end(stop) : stop
        }
    }

    private static func open(_ source: Source, isNew: Bool) throws(Refusal) -> FileStorage {
        func opened() throws(QCOW2Error) -> FileStorage {
            if isNew {
                do throws(QCOW2Error) {
                    return try FileStorage(creating: source.path)
                } catch {
                    guard (error.cause as? SystemError)?.isExistingFile == true else { throw error }
                }
            }
            var file = try FileStorage(path: source.path, for: .writing)
            if isNew { try file.truncate(toByteCount: 0) }
            return file
        }
        do throws(QCOW2Error) {
            return try opened()
        } catch {
            guard isNew else { throw source.opening(error) }
            let opening = source.opening(error)
            let prefix = Array("qemu-img: Could not open '".utf8) + source.word + Array("': ".utf8)
            var reason = Array(opening.lines[0].bytes.dropFirst(prefix.count).dropLast())
            if error.cause is SystemError {
                reason = Array("Could not create '\(source.path)': \(error.systemReason)".utf8)
            }
            throw Refusal(
                "\(source.word): error while converting raw: \(reason)", then: Array(opening.lines.dropFirst()))
        }
    }
}
