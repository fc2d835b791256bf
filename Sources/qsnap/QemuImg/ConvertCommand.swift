// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// What `convert` was told.
    private struct ConvertOptions {
        var (format, outputFormat) = ([UInt8]?.none, "raw")
        var snapshot: [UInt8]?
        var sparseByteCount: UInt64 = 4096
        var (keepsTarget, compresses, sharesByForce) = (false, false, false)
        var (showsProgress, isQuiet, copiesRanges, setsSparse) = (false, false, false, false)
        var lists: [[UInt8]] = []
        var refused: String?

        mutating func take(_ option: String, _ argument: [UInt8], _ version: QemuVersion) throws(Refusal) {
            switch option {
            case "f": format = argument
            case "O": outputFormat = String(decoding: argument, as: UTF8.self)
            case "l": snapshot = argument
            case "c": compresses = true
            case "n": keepsTarget = true
            case "U": sharesByForce = true
            case "p": showsProgress = true
            case "q": isQuiet = true
            case "C": copiesRanges = true
            case "o":
                guard !argument.isEmpty, argument.first != UInt8(ascii: ",") else {
                    throw Refusal("Invalid option list: \(argument)")
                }
                lists.append(argument)
            case "S":
                setsSparse = true
                sparseByteCount = try SizeArgument(parsing: argument).number(
                    "buffer size for sparse output", argument, version)
                guard sparseByteCount % 512 == 0, sparseByteCount <= 16 << 20 else {
                    throw Refusal(
                        """
                        Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to \
                        16777216. Select 0 to disable sparse detection (fully allocates output).
                        """)
                }
            case "m":
                guard case .value(1...16) = SizeArgument(parsing: argument) else {
                    throw Refusal(
                        "Invalid number of coroutines. Allowed number of coroutines is between 1 and 16")
                }
            // How qemu-img goes about it, which changes nothing of the result.
            case "t", "T", "W", "r": return
            case "B": refused = "-B"
            default: refused = "--\(option)"
            }
        }
    }

    /// `qemu-img convert`, to raw files and qcow2 images.
    ///
    /// A snapshot is written at its own size, where qemu-img cuts it or pads it to the active disk's.
    static func convert(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var options = ConvertOptions()
        let parsed = try operands(
            words, context, short: "hf:O:B:Cco:l:S:pt:T:qnm:WUr:",
            long: [
                GetoptLong.LongOption("force-share", as: "U"), GetoptLong.LongOption("target-image-opts"),
                GetoptLong.LongOption("salvage"), GetoptLong.LongOption("target-is-zero"),
                GetoptLong.LongOption("bitmaps"), GetoptLong.LongOption("skip-broken-bitmaps"),
            ]
        ) { (option, argument) throws(Refusal) in
            try options.take(option, argument, context.version)
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        if options.copiesRanges, options.compresses {
            throw Refusal("Cannot enable copy offloading when -c is used")
        }
        if options.copiesRanges, options.setsSparse {
            throw Refusal("Cannot enable copy offloading when -S is used")
        }
        if options.keepsTarget, !options.lists.isEmpty {
            throw Refusal("-o has no effect when skipping image creation")
        }
        guard operands.count >= 2, let target = operands.last else {
            throw Refusal("Must specify image file name")
        }
        if let refused = options.refused { throw Refusal("convert \(refused) isn't supported by qsnap") }
        if operands.count > 2, options.snapshot != nil {
            throw Refusal("No support for concatenating multiple snapshot")
        }
        var views: [DiskView] = []
        for file in operands.dropLast() {
            let source = try Source(
                file, format: options.format, hasOptions: hasOptions, sharesByForce: options.sharesByForce)
            views.append(try view(of: source, snapshot: options.snapshot))
        }
        let conversion = Conversion(
            views, keepsTarget: options.keepsTarget, skipsZeros: options.sparseByteCount > 0,
            meter: PercentMeter(isShown: options.showsProgress && !options.isQuiet))
        switch options.outputFormat {
        case "raw": try convertToRaw(conversion, target, options)
        case "qcow2": try convertToImage(conversion, target, options)
        case let other where other == "file" || Source.otherFormats.contains(other):
            throw Refusal("converting to the format '\(other)' isn't supported by qsnap")
        case let other: throw Refusal("Unknown file format '\(other)'")
        }
        return 0
    }

    private static func convertToRaw(
        _ conversion: Conversion, _ target: [UInt8], _ options: ConvertOptions
    ) throws(Refusal) {
        if options.compresses { throw Refusal("Compression not supported for this file format") }
        if !options.lists.isEmpty { throw Refusal("convert -o isn't supported by qsnap for raw files") }
        var file = try RawTarget(
            target, isNew: !options.keepsTarget, byteCount: conversion.byteCount, reading: conversion.views)
        try conversion.run(to: &file)
    }

    private static func convertToImage(
        _ conversion: Conversion, _ target: [UInt8], _ options: ConvertOptions
    ) throws(Refusal) {
        if options.keepsTarget {
            if options.compresses { throw Refusal("convert -c -n isn't supported by qsnap") }
            let source = try Source(
                target, format: Array("qcow2".utf8), hasOptions: false, sharesByForce: false)
            guard case .qcow2(let image) = try source.open(forWriting: true) else { return }
            do throws(QCOW2Error) { try source.checkIsNot(in: conversion.views) } catch { throw source.opening(error) }
            var existing = ImageTarget(image)
            return try conversion.run(to: &existing)
        }
        var list = CreateOptions()
        for text in options.lists { try list.add(String(decoding: text, as: UTF8.self), saying: "") }
        if list["backing_file"] != nil || list["backing_fmt"] != nil {
            throw Refusal("convert -o backing_file isn't supported by qsnap")
        }
        // The source's size counts, whatever was asked for.
        list["size"] = String(conversion.byteCount)
        if options.compresses {
            if ["metadata", "falloc", "full"].contains(list["preallocation"]) {
                throw Refusal("Compression and preallocation not supported at the same time")
            }
        }
        let prefix = target + Array(": error while converting qcow2".utf8)
        let new = try list.newImage(prefix)
        if options.compresses { return try conversion.compress(to: target, as: new, saying: prefix) }
        var image = ImageTarget(try createImage(new, at: target, saying: prefix, reading: conversion.views))
        try conversion.run(to: &image)
    }

    /// Opens an image, and finds the state by `ID_OR_NAME` or `snapshot.id=...,snapshot.name=...`.
    private static func view(of source: Source, snapshot word: [UInt8]?) throws(Refusal) -> DiskView {
        var isImage = false
        let view = try source.openView { (snapshots) throws(Refusal) in
            isImage = true
            guard let word else { return nil }
            guard let index = try index(of: word, in: snapshots) else {
                throw Refusal("Failed to load snapshot: Can't find snapshot")
            }
            return index
        }
        guard isImage || word == nil else {
            throw Refusal(
                """
                Failed to load snapshot: Block format 'raw' used by device '' does not support temporarily \
                loading internal snapshots
                """)
        }
        return view
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
}
