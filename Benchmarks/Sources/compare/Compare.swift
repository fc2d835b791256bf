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
    @Option(help: "Write the figures as JSON; rows in the file that aren't measured this time stay.") var json: String?
    @Option(help: "Write the figures as a picture.") var svg: String?
    @Flag(help: "Only make the images, and measure nothing.") var prepare = false
    @Flag(help: "Only print the rows in the JSON file, and measure nothing.") var report = false
    @Flag(help: "Drop the page cache before each run; needs root.") var cold = false
    @Flag(help: "Count system calls, bytes and flushes too, with strace.") var systemCalls = false

    func run() throws {
        let tools = Tools(qsnap: qsnap, folder: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        var report = try json.flatMap { try Report(contentsOf: $0) } ?? Report()
        if self.report {
            print(report.machine)
            print(Result.heading)
            for result in report.results { print(result.line) }
        } else {
            print(Result.heading)
            for (position, row) in Row.all.enumerated() where only.map(row.name.contains) ?? true {
                guard !prepare else {
                    _ = try row.specimen.path(in: folder, tools)
                    continue
                }
                var result = try measure(row, tools)
                result.position = position + (cold ? 1000 : 0)
                print(result.line)
                fflush(nil)
                report.add(result)
                if let json { try report.write(to: json) }
            }
        }
        if let svg { try Plot(report.results).text.write(toFile: svg, atomically: true, encoding: .utf8) }
    }

    private func measure(_ row: Row, _ tools: Tools) throws -> Result {
        let specimen = try row.specimen.path(in: folder, tools)
        let image = row.writes ? folder + "/work.qcow2" : specimen
        let output = folder + "/made"
        defer { if row.makesFile { try? FileManager.default.removeItem(atPath: output) } }
        defer { if row.writes { try? FileManager.default.removeItem(atPath: image) } }
        func command(_ program: String, _ arguments: [String]) -> [String] {
            [program] + arguments.map { $0 == "@" ? image : $0 == "%" ? output : $0 }
        }
        func prepare() throws {
            if row.writes { try tools.run(["cp", "--sparse=always", specimen, image]) }
            if row.makesFile { try? FileManager.default.removeItem(atPath: output) }
            try tools.run(["sync", "-f", specimen])
            if cold { try "3".write(toFile: "/proc/sys/vm/drop_caches", atomically: false, encoding: .utf8) }
        }
        let sides = [[command(qsnap, row.ours)], row.theirs.map { command("qemu-img", $0) }]
        var measurements: [[Measurement]] = [[], []]
        for _ in 0..<(row.isQuick ? runs * 20 : runs) {
            for side in sides.indices {
                // What takes long is measured once: its spread doesn't matter beside the ratio.
                if let last = measurements[side].last, last.wasCut || last.seconds > 20 { continue }
                try prepare()
                measurements[side].append(try Measurement.run(sides[side], limit: side == 0 ? .infinity : limit))
                // Once: every run does the same to a copy of the same image.
                if side == 0, row.writes, measurements[side].count == 1 {
                    try tools.run(["qemu-img", "check", "-q", image])
                }
            }
        }
        var result = Result(row, isCold: cold, measurements[0], measurements[1])
        try prepare()
        result.ours.peakByteCount = try Measurement.peakByteCount(sides[0], in: folder)
        // Not of what was cut off, or takes long: another run of that, and under strace, would not say more.
        let isTheirsShort = !result.theirs.wasCut && result.theirs.seconds < 20
        if isTheirsShort {
            try prepare()
            result.theirs.peakByteCount = try Measurement.peakByteCount(sides[1], in: folder)
        }
        if systemCalls {
            try prepare()
            result.ours.calls = try SystemCalls.count(sides[0], in: folder)
            if isTheirsShort {
                try prepare()
                result.theirs.calls = try SystemCalls.count(sides[1], in: folder)
            }
        }
        return result
    }
}
