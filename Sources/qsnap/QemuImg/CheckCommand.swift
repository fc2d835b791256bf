// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension QemuImg {
    /// `qemu-img check`, with and without repairing.
    static func check(_ words: [[UInt8]], _ context: Context) throws(Refusal) -> Int32 {
        var format: [UInt8]?
        var output: [UInt8]?
        var repair: RepairScope?
        var (isQuiet, sharesByForce) = (false, false)
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
                repair = RepairScope(rawValue: String(decoding: argument, as: UTF8.self))
                guard repair == nil else { return }
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
        let image = try source.openForCheck(repairing: repair != nil)
        let (report, fixed) = try examine(image, repair, source.options)
        if json {
            Console.writeOutput("\(Self.json(report, fixed, source).text())\n")
        } else if !isQuiet {
            Console.writeOutput("\(text(fixed))\(text(report))")
        }
        return report.corruptionCount > 0 ? 2 : report.count(of: .leak) > 0 ? 3 : 0
    }

    /// What a repair made good.
    private struct Fixed {
        var leakCount: UInt64 = 0
        var corruptionCount: UInt64 = 0

        init() {}

        init(_ report: RepairReport) {
            guard let after = report.after else { return }
            func difference(_ before: UInt64, _ after: UInt64) -> UInt64 { before > after ? before - after : 0 }
            leakCount = difference(report.before.count(of: .leak), after.count(of: .leak))
            corruptionCount = difference(report.before.corruptionCount, after.corruptionCount)
        }
    }

    /// Checks the image, or repairs it and checks it again.
    private static func examine(
        _ suspect: consuming SuspectImage<FileStorage>, _ scope: RepairScope?, _ options: WriteOptions
    ) throws(Refusal) -> (CheckReport, Fixed) {
        do throws(QCOW2Error) {
            guard let scope else { return (try suspect.check(CheckOptions(), say(_:)), Fixed()) }
            // What is left of snapshots goes the way of all leaks, as with qemu-img.
            let report = try suspect.repair(scope, discardingRemnants: true, options: options, found: say(_:))
            return (report.after ?? report.before, Fixed(report))
        } catch {
            throw Refusal("Check failed: \(error.systemReason)")
        }
    }

    /// Says what was found in this library's words, one line for each finding.
    static func say(_ finding: Finding) {
        guard finding.severity > .notice, finding.code != .markedCorrupt else { return }
        let kind = finding.severity == .leak ? "Leaked" : "ERROR"
        Console.writeError("\(kind) \(finding.message) [\(finding.code.rawValue)]\n" as ByteText)
    }

    private static func text(_ fixed: Fixed) -> ByteText {
        guard fixed.leakCount > 0 || fixed.corruptionCount > 0 else { return "" }
        return """
            The following inconsistencies were found and repaired:

                \(fixed.leakCount) leaked clusters
                \(fixed.corruptionCount) corruptions

            Double checking the fixed image now...

            """
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

    private static func json(_ report: CheckReport, _ fixed: Fixed, _ source: Source) -> QemuJSON {
        var members: [(String, QemuJSON)] = []
        func add(_ key: String, _ number: UInt64) {
            if number > 0 { members.append((key, .number(Int64(clamping: number)))) }
        }
        add("image-end-offset", report.imageEndOffset.rawValue)
        add("compressed-clusters", report.compressedClusterCount)
        add("total-clusters", report.totalClusterCount)
        add("corruptions", report.corruptionCount)
        add("corruptions-fixed", fixed.corruptionCount)
        members.append(("check-errors", .number(0)))
        add("leaks", report.count(of: .leak))
        add("leaks-fixed", fixed.leakCount)
        add("allocated-clusters", report.allocatedClusterCount)
        members.append(("filename", .string(source.word)))
        members.append(("format", .string("qcow2")))
        add("fragmented-clusters", report.fragmentedClusterCount)
        return .object(members)
    }
}

extension Finding.Code {
    fileprivate static let markedCorrupt = Self(rawValue: "marked-corrupt")
}

extension CheckReport {
    /// What qemu-img would count; the mark that an image is corrupt is none of it.
    fileprivate var corruptionCount: UInt64 {
        count(of: .corruption) + count(of: .critical) - count(of: .markedCorrupt)
    }
}
