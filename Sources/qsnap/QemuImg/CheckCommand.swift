// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img check`, without repairing.
    static func check(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var format: [UInt8]?
        var output: [UInt8]?
        var (isQuiet, repairs, sharesByForce) = (false, false, false)
        let parsed = try operands(
            words, context, short: "hf:r:T:qU",
            long: [
                GetoptLong.LongOption("format", takesArgument: true, as: "f"),
                GetoptLong.LongOption("repair", takesArgument: true, as: "r"),
                GetoptLong.LongOption("output", takesArgument: true),
                GetoptLong.LongOption("force-share", as: "U"),
            ]
        ) { (option, argument) throws(Refusal) in
            switch option {
            case "f": format = argument
            case "output": output = argument
            case "q": isQuiet = true
            case "U": sharesByForce = true
            case "r":
                repairs = true
                guard !["leaks", "all"].contains(String(decoding: argument, as: UTF8.self)) else { return }
                guard context.version < .hasCommandHelp else {
                    throw .usage(
                        "--repair (-r) expects 'leaks' or 'all', not '\(argument)'", of: "check", context.version)
                }
                throw .usage(
                    "Unknown option value for -r (expecting 'leaks' or 'all'): \(argument)", of: "check",
                    context.version)
            default: return  // A cache mode.
            }
        }
        guard let (operands, hasOptions) = parsed else { return 0 }
        guard operands.count == 1, let file = operands.first else {
            throw .usage("Expecting one image file name", of: "check", context.version)
        }
        let json =
            try output.map { argument throws(Refusal) in
                try isJSON(argument, "check", context.version)
            } ?? false
        if hasOptions, format != nil { throw Refusal("--image-opts and --format are mutually exclusive") }
        let source = try Source(file, format: format, hasOptions: hasOptions, sharesByForce: sharesByForce)
        if repairs {
            if sharesByForce { throw source.refusal("force-share=on can only be used with read-only images") }
            throw Refusal("check -r isn't supported by qsnap under this name; use qsnap check --repair")
        }
        let report = try report(source)
        if json {
            Console.writeOutput("\(Self.json(report, source).text())\n")
        } else if !isQuiet {
            Console.writeOutput(text(report))
        }
        return report.corruptionCount > 0 ? 2 : report.count(of: .leak) > 0 ? 3 : 0
    }

    private static func report(_ source: Source) throws(Refusal) -> CheckReport {
        let storage: FileStorage
        switch try source.openForInspection() {
        case .raw: throw Refusal("This image format does not support checks", status: 63)
        case .qcow2(let image): storage = image.close()
        }
        do throws(QCOW2Error) {
            let suspect = try SuspectImage(storage: storage)
            // What is found is said in this library's words, one line each.
            return try suspect.check(CheckOptions()) { finding in
                guard finding.severity > .notice else { return }
                let kind = finding.severity == .leak ? "Leaked" : "ERROR"
                Console.writeError("\(kind) \(finding.message) [\(finding.code.rawValue)]\n" as ByteText)
            }
        } catch {
            throw Refusal("Check failed: \(error.systemReason)")
        }
    }

    private static func text(_ report: CheckReport) -> ByteText {
        var text = ByteText()
        let (corruptions, leaks) = (report.corruptionCount, report.count(of: .leak))
        if corruptions == 0, leaks == 0 { text += "No errors were found on the image.\n" }
        if corruptions > 0 {
            text += "\n\(corruptions) errors were found on the image.\n"
            text += "Data may be corrupted, or further writes to the image may corrupt it.\n"
        }
        if leaks > 0 {
            text += "\n\(leaks) leaked clusters were found on the image.\n"
            text += "This means waste of disk space, but no harm to data.\n"
        }
        let (total, allocated) = (report.totalClusterCount, report.allocatedClusterCount)
        if total > 0, allocated > 0 {
            func percent(_ part: UInt64, of all: UInt64) -> String {
                formatted("%0.2f%%", Double(part) * 100 / Double(all))
            }
            text += "\(allocated)/\(total) = \(percent(allocated, of: total)) allocated, "
            text += "\(percent(report.fragmentedClusterCount, of: allocated)) fragmented, "
            text += "\(percent(report.compressedClusterCount, of: allocated)) compressed clusters\n"
        }
        if report.imageEndOffset.rawValue > 0 { text += "Image end offset: \(report.imageEndOffset.rawValue)\n" }
        return text
    }

    private static func json(_ report: CheckReport, _ source: Source) -> QemuJSON {
        var members: [(String, QemuJSON)] = []
        func add(_ key: String, _ number: UInt64) {
            if number > 0 { members.append((key, .number(Int64(clamping: number)))) }
        }
        add("image-end-offset", report.imageEndOffset.rawValue)
        add("compressed-clusters", report.compressedClusterCount)
        add("total-clusters", report.totalClusterCount)
        add("corruptions", report.corruptionCount)
        members.append(("check-errors", .number(0)))
        add("leaks", report.count(of: .leak))
        add("allocated-clusters", report.allocatedClusterCount)
        members.append(("filename", .string(source.word)))
        members.append(("format", .string("qcow2")))
        add("fragmented-clusters", report.fragmentedClusterCount)
        return .object(members)
    }
}

extension CheckReport {
    fileprivate var corruptionCount: UInt64 { count(of: .corruption) + count(of: .critical) }
}

extension Source {
    /// Opens the file for a check, which reads further than others in a damaged image.
    fileprivate func openForInspection() throws(Refusal) -> OpenedDisk { try open(forWriting: false) }
}
