// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img info`.
    static func info(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var format: [UInt8]?
        var (json, chain, sharesByForce) = (false, false, false)
        var output: [UInt8]?
        let parsed = try operands(
            words, context, short: "hf:U",
            long: [
                GetoptLong.LongOption("format", takesArgument: true, as: "f"),
                GetoptLong.LongOption("output", takesArgument: true), GetoptLong.LongOption("backing-chain"),
                GetoptLong.LongOption("force-share", as: "U"),
            ]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": format = argument
            case "output": output = argument
            case "backing-chain": chain = true
            default: sharesByForce = true
            }
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        // Complaints about the file's name come first.
        guard operands.count == 1, let file = operands.first else {
            throw .usage("Expecting one image file name", of: "info", context.version)
        }
        if let output { json = try isJSON(output, "info", context.version) }
        if hasOptions, format != nil { throw Refusal("--image-opts and --format are mutually exclusive") }

        var source = try Source(file, format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
        var images = [try ImageDescription(source, context.version)]
        var paths: Set<[UInt8]> = [Array(source.path.utf8)]
        while chain, let image = images.last, let path = image.backingPath {
            // The user asked for the chain, and so for these files.
            guard paths.insert(path).inserted else {
                throw Refusal("Backing file '\(path)' creates an infinite loop.")
            }
            source = try Source(
                path, format: image.backing?.formatBytes, hasOptions: false, sharesByForce: sharesByForce)
            images.append(try ImageDescription(source, context.version))
        }
        guard json else {
            for (index, image) in images.enumerated() {
                Console.writeOutput("\(index > 0 ? "\n" : "")\(image.text(context.version))")
            }
            return 0
        }
        let objects = images.map { $0.json(context.version) }
        Console.writeOutput("\((chain ? QemuJSON.array(objects) : objects[0]).text())\n")
        return 0
    }
}
