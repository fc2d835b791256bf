// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img create`, of qcow2 images.
    static func create(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var format = "raw"
        var optionLists: [[UInt8]] = []
        var (backingFile, backingFormat) = ([UInt8]?.none, [UInt8]?.none)
        var (isQuiet, isUnsafe) = (false, false)
        let parsed = try operands(words, context, short: "F:b:f:ho:qu", long: []) {
            (option, argument) throws(Refusal) in
            switch option {
            case "F": backingFormat = argument
            case "b": backingFile = argument
            case "f": format = String(decoding: argument, as: UTF8.self)
            case "o":
                guard !argument.isEmpty, argument.first != UInt8(ascii: ",") else {
                    throw Refusal("Invalid option list: \(argument)")
                }
                optionLists.append(argument)
            case "q": isQuiet = true
            default: isUnsafe = true
            }
        }
        guard let (operands, _) = parsed else { return 0 }
        guard let file = operands.first else {
            throw .usage("Expecting image file name", of: "create", context.version)
        }
        let size =
            operands.count > 1
            ? try SizeArgument(parsing: operands[1]).number("image size", operands[1], context.version) : nil
        if operands.count > 2 { throw .usage("Unexpected argument: \(operands[2])", of: "create", context.version) }
        guard format == "qcow2" else {
            if ["raw", "file"].contains(format) || Source.otherFormats.contains(format) {
                throw Refusal("\(file): creating the format '\(format)' isn't supported by qsnap")
            }
            throw Refusal("\(file): Unknown file format '\(format)'")
        }
        var options = CreateOptions()
        for list in optionLists { try options.add(String(decoding: list, as: UTF8.self), saying: "\(file): ") }
        if let size {
            guard options["size"] == nil else { throw Refusal("\(file): The image size must be specified only once") }
            options["size"] = String(size)
        }
        if let backingFile { options["backing_file"] = String(decoding: backingFile, as: UTF8.self) }
        if let backingFormat { options["backing_fmt"] = String(decoding: backingFormat, as: UTF8.self) }
        if options["backing_file"] == "" { throw Refusal("\(file): Expected backing file name, got empty string") }
        if let backing = options["backing_file"], !isUnsafe {
            let backingSize = try backingSize(backing, options["backing_fmt"], of: file, context.version)
            if options["size"] == nil { options["size"] = String(backingSize) }
        }
        guard options["size"] != nil else { throw Refusal("\(file): Image creation needs a size parameter") }
        if !isQuiet { Console.writeOutput("Formatting '\(file)', fmt=qcow2\(options.text)\n") }
        _ = try createImage(options.newImage(file), at: file, saying: file)
        return 0
    }

    /// Bytes of a backing file's disk; the user asked for that file.
    private static func backingSize(
        _ name: String, _ format: String?, of file: [UInt8], _ version: QemuVersion
    ) throws(Refusal) -> UInt64 {
        let folder = file.lastIndex(of: UInt8(ascii: "/")).map { Array(file[...$0]) } ?? []
        let path = name.utf8.first == UInt8(ascii: "/") ? Array(name.utf8) : folder + Array(name.utf8)
        let source = try Source(
            path, format: format.map { Array($0.utf8) }, hasOptions: false, sharesByForce: false)
        let description: ImageDescription
        do throws(Refusal) {
            description = try ImageDescription(source, version)
        } catch {
            // Opened by its own layer, it is named once.
            let twice = Array("qemu-img: Could not open '".utf8) + path + Array("': ".utf8)
            let reason = error.lines[0].bytes.starts(with: twice) ? error.lines[0].bytes.dropFirst(twice.count) : []
            throw Refusal(
                "\(file): \(Array(reason.prefix { $0 != UInt8(ascii: "\n") }))",
                then: Array(error.lines.dropFirst()) + ["Could not open backing image.\n"])
        }
        guard format != nil else {
            throw Refusal(
                "\(file): Backing file specified without backing format",
                then: ["Detected format of \(description.format).\(version >= .hasWideTable ? "\n" : "")"])
        }
        return description.virtualSize
    }

    /// Creates the image, over an old file if there is one: everything that can be refused has been.
    ///
    /// - Parameters:
    ///   - new: What the image is to be.
    ///   - file: The word that names it.
    ///   - prefix: What complaints begin with.
    ///   - views: Disks whose files must not be written over.
    /// - Returns: The open image.
    /// - Throws: ``Refusal``.
    static func createImage(
        _ new: NewImage, at file: [UInt8], saying prefix: [UInt8], reading views: [DiskView] = []
    ) throws(Refusal) -> Image<FileStorage> {
        let source = try Source(file, hasOptions: false, sharesByForce: false)
        func refusal(_ error: QCOW2Error) -> Refusal {
            if error.code == .locksUnavailable {
                return Refusal("\(prefix): Failed to lock byte 101: \(error.systemReason)")
            }
            let opening = source.opening(error)
            let start = Array("qemu-img: Could not open '".utf8) + file + Array("': ".utf8)
            guard error.code == .inUse, opening.lines[0].bytes.starts(with: start) else {
                return error.cause is SystemError
                    ? Refusal("\(prefix): Could not create '\(source.path)': \(error.systemReason)")
                    : Refusal("\(prefix): \(error.systemReason)")
            }
            let reason = opening.lines[0].bytes.dropFirst(start.count).dropLast()
            return Refusal("\(prefix): \(Array(reason))", then: Array(opening.lines.dropFirst()))
        }
        do throws(QCOW2Error) {
            return try Image.create(source.path, new)
        } catch {
            guard (error.cause as? SystemError)?.isExistingFile == true else { throw refusal(error) }
            do throws(QCOW2Error) {
                var storage = try FileStorage(path: source.path, for: .writing)
                try source.checkIsNot(in: views)
                try storage.truncate(toByteCount: 0)
                return try Image.create(new, in: storage)
            } catch {
                throw refusal(error)
            }
        }
    }
}
