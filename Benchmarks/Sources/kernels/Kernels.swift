// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import Foundation

@main
struct Kernels: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Time the loops in which snapshots spend their time, beside a copy of as many bytes.",
        discussion: "Speeds are the best of many short repetitions; instructions are counted by valgrind.")

    @Option(help: "Only loops with this text in their name.") var only: String?
    @Option(help: "Seconds to repeat each loop for.") var seconds = 0.2
    @Flag(help: "Count instructions, too; needs valgrind.") var instructions = false
    @Option(help: ArgumentHelp("Call each loop so many times, and print nothing.", visibility: .hidden)) var calls: Int?

    func run() throws {
        let kernels = Kernel.all().filter { kernel in only.map(kernel.name.contains) ?? true }
        if let calls {
            for kernel in kernels {
                let body = kernel.prepare()
                for _ in 0..<calls { try body() }
            }
            return
        }
        var lines = [
            ["Loop", "GB/s", "of a copy", "ns per entry"] + (instructions ? ["instructions per entry"] : [])
        ]
        var ceiling: Double?
        for kernel in kernels {
            let seconds = try shortest(kernel)
            let speed = Double(kernel.byteCount) / seconds / 1e9
            ceiling = ceiling ?? speed
            var cells = [
                kernel.name, String(format: "%.2f", speed), String(format: "%.0f %%", speed / (ceiling ?? speed) * 100),
                String(format: "%.3f", seconds / Double(kernel.itemCount) * 1e9),
            ]
            if instructions {
                let count = try instructionCount(kernel, calls: 9) - instructionCount(kernel, calls: 1)
                cells.append(String(format: "%.2f", Double(count) / 8 / Double(kernel.itemCount)))
            }
            lines.append(cells)
        }
        lines.insert(["---"] + [String](repeating: "---:", count: lines[0].count - 1), at: 1)
        for line in lines { print("| " + line.joined(separator: " | ") + " |") }
    }

    /// Seconds of one call, by the fastest batch of calls.
    private func shortest(_ kernel: Kernel) throws -> Double {
        let body = kernel.prepare()
        let end = ContinuousClock.now + .seconds(seconds)
        let batch = max(1, (1 << 20) / kernel.byteCount)
        var best = Duration.seconds(1000)
        repeat {
            let start = ContinuousClock.now
            for _ in 0..<batch { try body() }
            best = min(best, start.duration(to: .now))
        } while ContinuousClock.now < end
        return best / .seconds(1) / Double(batch)
    }

    /// Instructions of a process that calls a loop so many times.
    private func instructionCount(_ kernel: Kernel, calls: Int) throws -> Int {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", CommandLine.arguments[0],
            "--only", kernel.name, "--calls", "\(calls)",
        ]
        process.environment = ProcessInfo.processInfo.environment.merging(["SWIFT_DETERMINISTIC_HASHING": "1"]) { $1 }
        let pipe = Pipe()
        process.standardError = pipe
        try process.run()
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        // ==123== Collected : 4567
        guard process.terminationStatus == 0,
            let line = text.split(separator: "\n").last(where: { $0.contains("Collected") }),
            let count = line.split(separator: " ").last.flatMap({ Int($0) })
        else { throw ValidationError("valgrind failed: \(text)") }
        return count
    }
}
