// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension Source {
    /// Opens a file to read its disk, for an image with its backing chain: the user asked for what is in it.
    ///
    /// - Parameter find: Chooses the snapshot, by its index; `nil` is the active state.
    /// - Returns: The disk.
    /// - Throws: ``Refusal``.
    func openView(
        ofSnapshot find: ([Snapshot]) throws(Refusal) -> Int? = { (_) throws(Refusal) in nil }
    ) throws(Refusal) -> DiskView {
        let image: Image<FileStorage>
        switch try open(forWriting: false) {
        case .raw(let storage):
            do throws(QCOW2Error) {
                return try DiskView(rawFile: storage)
            } catch {
                throw refusal("\(error.systemReason)")
            }
        case .qcow2(let opened): image = opened
        }
        let index = try find(image.snapshots)
        do throws(QCOW2Error) {
            let reader = try ImageReader(image, backing: .anyFile)
            return if let index { try reader.view(ofSnapshotAt: index) } else { try reader.view() }
        } catch {
            throw refusal("\(error.systemReason)")
        }
    }
}

extension QemuImg {
    /// `qemu-img map`.
    static func map(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var format: [UInt8]?
        var output: [UInt8]?
        var sharesByForce = false
        var (start, length) = (UInt64(0), UInt64?.none)
        let parsed = try operands(
            words, context, short: "hf:s:l:U",
            long: [
                GetoptLong.LongOption("format", takesArgument: true, as: "f"),
                GetoptLong.LongOption("output", takesArgument: true),
                GetoptLong.LongOption("start-offset", takesArgument: true, as: "s"),
                GetoptLong.LongOption("max-length", takesArgument: true, as: "l"),
                GetoptLong.LongOption("force-share", as: "U"),
            ]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": format = argument
            case "output": output = argument
            case "s": start = try SizeArgument(parsing: argument).number("start offset", argument, context.version)
            case "l": length = try SizeArgument(parsing: argument).number("max length", argument, context.version)
            default: sharesByForce = true
            }
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        guard operands.count == 1, let file = operands.first else {
            throw .usage("Expecting one image file name", of: "map", context.version)
        }
        let json =
            try output.map { argument throws(Refusal) in
                try isJSON(argument, "map", context.version)
            } ?? false
        if hasOptions, format != nil { throw Refusal("--image-opts and --format are mutually exclusive") }
        let source = try Source(file, format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
        let view = try source.openView()
        let end = length.map {
            start > view.virtualSize || $0 > view.virtualSize - start ? view.virtualSize : start + $0
        }
        let range = start..<max(start, end ?? view.virtualSize)
        if json { try mapJSON(view, range, context.version, source) } else { try mapText(view, range, source) }
        return 0
    }

    private static func extents(
        of view: DiskView, _ range: Range<UInt64>, _ source: Source, _ body: (Extent) throws(Refusal) -> Void
    ) throws(Refusal) {
        var cursor = view.extents(in: GuestOffset(range.lowerBound)..<GuestOffset(range.upperBound))
        while true {
            let extent: Extent?
            do throws(QCOW2Error) {
                extent = try cursor.next()
            } catch {
                throw Refusal("Failed to read image metadata: \(error.systemReason)")
            }
            guard let extent else { return }
            guard extent.kind != .unopened else {
                throw source.refusal("Could not open backing file: it can't be opened, or has no known format")
            }
            try body(extent)
        }
    }

    private static func mapJSON(
        _ view: DiskView, _ range: Range<UInt64>, _ version: QemuVersion, _ source: Source
    ) throws(Refusal) {
        var rows: [String] = []
        func row(_ start: UInt64, _ length: UInt64, _ depth: Int, _ flags: [Bool], _ more: String) -> String {
            """
            { "start": \(start), "length": \(length), "depth": \(depth), "present": \(flags[0]), \
            "zero": \(flags[1]), "data": \(flags[2])\(more)}
            """
        }
        try extents(of: view, range, source) { (extent) throws(Refusal) in
            var more = version >= .saysCompressed ? ", \"compressed\": \(extent.kind == .compressed)" : ""
            if let offset = extent.hostOffset { more += ", \"offset\": \(offset.rawValue)" }
            let flags =
                switch extent.kind {
                case .data, .compressed: [true, false, true]
                case .zero: [true, true, false]
                default: [false, true, false]
                }
            rows.append(row(extent.start.rawValue, extent.byteCount, extent.depth, flags, more))
        }
        if rows.isEmpty {
            let more = version >= .saysCompressed ? ", \"compressed\": false" : ""
            rows.append(row(range.lowerBound, 0, 0, [false, false, false], more))
        }
        Console.writeOutput("[\(rows.joined(separator: ",\n"))]\n")
    }

    private static func mapText(_ view: DiskView, _ range: Range<UInt64>, _ source: Source) throws(Refusal) {
        Console.writeOutput("Offset          Length          Mapped to       File\n")
        func cell(_ number: UInt64) -> ByteText {
            ByteText(Array((number == 0 ? "0" : "0x" + String(number, radix: 16)).utf8)).padded(16)
        }
        var text = ByteText()
        var last: (start: UInt64, length: UInt64, offset: UInt64, depth: Int)?
        func flush() {
            guard let row = last else { return }
            text += "\(cell(row.start))\(cell(row.length))\(cell(row.offset))\(view.fileNames[row.depth])\n"
        }
        try extents(of: view, range, source) { (extent) throws(Refusal) in
            guard extent.kind == .data || extent.kind == .compressed else { return }
            guard let offset = extent.hostOffset else {
                flush()
                Console.writeOutput(text)
                throw Refusal("File contains external, encrypted or compressed clusters.")
            }
            flush()
            last = (extent.start.rawValue, extent.byteCount, offset.rawValue, extent.depth)
        }
        flush()
        Console.writeOutput(text)
    }
}
