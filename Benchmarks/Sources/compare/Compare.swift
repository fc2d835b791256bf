// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import Foundation

@main
struct Compare: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Time qsnap's verbs and qemu-img's in turn on copies of the same images.",
        discussion: "Prints medians, their ratio, and the peak memory of both.")

    @Option(help: "The qsnap to measure.") var qsnap: String
    @Option(help: "Where images are made and kept between runs; needs a few gigabytes.") var folder: String
    @Option(help: "Only rows with this text in their name.") var only: String?
    @Option(help: "How often each row is measured.") var runs = 5
    @Option(help: "Seconds after which a qemu-img is cut off.") var limit = 120.0
    @Option(help: "Write the figures as JSON.") var json: String?
    @Option(help: "Write the figures as a picture.") var svg: String?
    @Flag(help: "Drop the page cache before each run; needs root.") var cold = false
    @Flag(help: "Count system calls, bytes and flushes too, with strace.") var systemCalls = false

    func run() throws {
        let tools = Tools(qsnap: qsnap, folder: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        var results: [Result] = []
        for row in Row.all where only.map(row.name.contains) ?? true {
            let result = try measure(row, tools)
            if results.isEmpty { print(Result.heading) }
            print(result.line)
            fflush(nil)
            results.append(result)
        }
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            try encoder.encode(results).write(to: URL(fileURLWithPath: json))
        }
        if let svg { try Plot(results).text.write(toFile: svg, atomically: true, encoding: .utf8) }
    }

    private func measure(_ row: Row, _ tools: Tools) throws -> Result {
        let specimen = try row.specimen.path(in: folder, tools)
        let image = row.writes ? folder + "/work.qcow2" : specimen
        defer { if row.writes { try? FileManager.default.removeItem(atPath: image) } }
        func command(_ program: String, _ arguments: [String]) -> [String] {
            [program] + arguments.map { $0 == "@" ? image : $0 }
        }
        func prepare() throws {
            if row.writes { try tools.run(["cp", "--sparse=always", specimen, image]) }
            try tools.run(["sync", "-f", specimen])
            if cold { try "3".write(toFile: "/proc/sys/vm/drop_caches", atomically: false, encoding: .utf8) }
        }
        let sides = [[command(qsnap, row.ours)], row.theirs.map { command("qemu-img", $0) }]
        var measurements: [[Measurement]] = [[], []]
        for _ in 0..<(row.isQuick ? runs * 20 : runs) {
            for side in sides.indices {
                // What takes long is measured once: its spread doesn't matter beside the ratio.
                if let last = measurements[side].last, last.seconds > 20 { continue }
                try prepare()
                measurements[side].append(try Measurement.run(sides[side], limit: side == 0 ? .infinity : limit))
                if side == 0, row.writes { try tools.run(["qemu-img", "check", "-q", image]) }
            }
        }
        var result = Result(row, measurements[0], measurements[1])
        try prepare()
        result.ours.peakByteCount = try Measurement.peakByteCount(sides[0], in: folder)
        if result.theirs.seconds < 20 {
            try prepare()
            result.theirs.peakByteCount = try Measurement.peakByteCount(sides[1], in: folder)
        }
        if systemCalls {
            try prepare()
            result.ours.calls = try SystemCalls.count(sides[0], in: folder)
            if result.theirs.seconds < 20 {
                try prepare()
                result.theirs.calls = try SystemCalls.count(sides[1], in: folder)
            }
        }
        return result
    }
}
