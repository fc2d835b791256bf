// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img resize`.
    static func resize(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var words = words
        var size: [UInt8]?
        // Up to 10.0 the last word is the size, whatever it looks like.
        if context.version < .hasCommandHelp {
            if words.count == 2, ["-h", "--help"].contains(String(decoding: words[1], as: UTF8.self)) {
                Console.writeOutput(help(context.version, for: "resize"))
                return 0
            }
            guard words.count >= 3 else { throw .usage("Not enough arguments", of: "resize", context.version) }
            size = words.removeLast()
        }
        var format: [UInt8]?
        var (isQuiet, shrinks) = (false, false)
        var preallocates = false
        let parsed = try operands(
            words, context, short: "f:hq",
            long: [
                GetoptLong.LongOption("preallocation", takesArgument: true), GetoptLong.LongOption("shrink"),
            ]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": format = argument
            case "q": isQuiet = true
            case "shrink": shrinks = true
            default:
                let mode = String(decoding: argument, as: UTF8.self)
                guard ["off", "metadata", "falloc", "full"].contains(mode) else {
                    throw Refusal("Invalid preallocation mode '\(mode)'")
                }
                preallocates = mode != "off"
            }
        }
        guard let parsed else { return 0 }
        var operands = parsed.operands
        if size == nil, operands.count == 2 { size = operands.removeLast() }
        guard operands.count == 1, let file = operands.first, let size else {
            throw .usage("Expecting image file name and size", of: "resize", context.version)
        }
        let sign = size.first.flatMap { [UInt8(ascii: "+"), UInt8(ascii: "-")].contains($0) ? $0 : nil }
        guard case .value(let number) = SizeArgument(parsing: sign == nil ? size : Array(size.dropFirst())) else {
            throw Refusal(
                "Parameter 'size' expects a non-negative number below 2^64",
                then: [
                    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n",
                    "and exabytes, respectively.\n",
                ])
        }
        let source = try Source(file, format: format, hasOptions: parsed.hasOptions, sharesByForce: false)
        switch try source.open(forWriting: true) {
        case .raw(var storage):
            try resizeFile(&storage, to: newSize(number, sign, byteCount(of: storage, source), shrinks), preallocates)
        case .qcow2(var image):
            let newSize = try newSize(number, sign, image.virtualSize / 512 * 512, shrinks)
            guard !preallocates || newSize <= image.virtualSize else {
                throw Refusal("growing with preallocation isn't supported by qsnap")
            }
            if image.version == 2, !image.snapshots.isEmpty {
                throw Refusal("Can't resize a v2 image which has snapshots")
            }
            guard newSize % 512 == 0 else { throw Refusal("The new size must be a multiple of 512") }
            let backingSize = try backingSize(of: image, source)
            do throws(QCOW2Error) {
                try image.resize(
                    to: newSize, allowingDataLoss: shrinks, backingSize: backingSize, options: source.options)
            } catch {
                if error.code == .limitExceeded { throw Refusal("Failed to grow the L1 table: File too large") }
                throw Refusal("\(error.systemReason)")
            }
        }
        if !isQuiet { Console.writeOutput("Image resized.\n") }
        return 0
    }

    /// The size that a number with a sign means.
    private static func newSize(
        _ number: UInt64, _ sign: UInt8?, _ current: UInt64, _ shrinks: Bool
    ) throws(Refusal) -> UInt64 {
        var size = number
        if sign == UInt8(ascii: "+") {
            let (sum, overflow) = current.addingReportingOverflow(number)
            size = overflow ? .max : sum
        } else if sign == UInt8(ascii: "-") {
            size = number > current ? 0 : current - number
        }
        guard size > 0, size < 1 << 63 else { throw Refusal("New image size must be positive") }
        guard size >= current || shrinks else {
            throw Refusal(
                "Use the --shrink option to perform a shrink operation.",
                then: [
                    """
                    qemu-img: warning: Shrinking an image will delete all data beyond the shrunken image's end. \
                    Before performing such an operation, make sure there is no important data there.\n
                    """
                ])
        }
        return size
    }

    private static func byteCount(of storage: borrowing FileStorage, _ source: Source) throws(Refusal) -> UInt64 {
        do throws(QCOW2Error) {
            return (try storage.byteCount() + 511) / 512 * 512
        } catch {
            throw source.refusal("\(error.systemReason)")
        }
    }

    private static func resizeFile(
        _ storage: inout FileStorage, to size: UInt64, _ preallocates: Bool
    ) throws(Refusal) {
        guard !preallocates else { throw Refusal("growing with preallocation isn't supported by qsnap") }
        do throws(QCOW2Error) {
            try storage.truncate(toByteCount: size)
            try storage.flush()
        } catch {
            throw Refusal("Failed to resize file: \(error.systemReason)")
        }
    }

    /// Bytes of the backing file's disk, where that can be found out; the user asked for what needs it.
    private static func backingSize(
        of image: borrowing Image<FileStorage>, _ source: Source
    ) throws(Refusal) -> UInt64? {
        guard image.hasBackingFile else { return nil }
        let description = try? ImageDescription(source.readingUnlocked, .standard)
        guard let path = description?.backingPath else { return nil }
        let backing = try? Source(
            path, format: description?.backing?.formatBytes, hasOptions: false, sharesByForce: false)
        return backing.flatMap { try? ImageDescription($0, .standard).virtualSize }
    }
}

extension Source {
    /// The same file, to look at while it is open for writing.
    var readingUnlocked: Source {
        get throws(Refusal) { try Source(Array(path.utf8), hasOptions: false, sharesByForce: true) }
    }
}
