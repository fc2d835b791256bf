// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import Foundation
import QCOW2

@main
struct Reads: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Time reading a state of the disk through a view, beside qemu-io with the same reads.",
        discussion: "qemu-io gets its reads as commands on standard input; the time of its start is taken off.")

    @Argument(help: "The image.") var image: String
    @Option(help: "How many random reads of 4 KiB.") var count = 50_000
    @Option(help: "Decides the places of the random reads.") var seed: UInt64 = 1
    @Option(help: "How often everything is measured.") var runs = 5

    func run() throws {
        let size = try Image.open(image, for: .reading).virtualSize
        var generator = Generator(state: seed)
        let random = (0..<count).map { _ in generator.next() % (size / 4096) * 4096 }
        let sequential = stride(from: 0, to: size - size % (1 << 20), by: 1 << 20).map { UInt64($0) }
        print("| Reads | a view | qemu-io | ratio |\n|---|---:|---:|---:|")
        try compare("\(count) random ones of 4 KiB", random, byteCount: 4096)
        try compare("all in order, 1 MiB each", sequential, byteCount: 1 << 20)
    }

    /// Prints medians; in turn, so that both sides see the same machine.
    private func compare(_ name: String, _ offsets: [UInt64], byteCount: Int) throws {
        var (ours, theirs): ([Double], [Double]) = ([], [])
        for _ in 0..<runs {
            ours.append(try seconds { try readView(offsets, byteCount) })
            let start = try seconds { try readTool([], byteCount) }
            theirs.append(try seconds { try readTool(offsets, byteCount) } - start)
        }
        let (mine, other) = (ours.sorted()[runs / 2], theirs.sorted()[runs / 2])
        let text = [mine, other].map { String(format: "%.3f s", $0) }
        print("| \(name) | \(text[0]) | \(text[1]) | \(String(format: "%.1f", other / mine)) × |")
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = ContinuousClock.now
        try body()
        return start.duration(to: .now) / .seconds(1)
    }

    private func readView(_ offsets: [UInt64], _ byteCount: Int) throws {
        let view = try ImageReader(Image.open(image, for: .reading)).view()
        var bytes = [UInt8](repeating: 0, count: byteCount)
        for offset in offsets {
            var span = bytes.mutableSpan
            try view.read(into: &span, at: GuestOffset(offset))
        }
    }

    private func readTool(_ offsets: [UInt64], _ byteCount: Int) throws {
        let script = FileManager.default.temporaryDirectory.appendingPathComponent("reads-\(getpid()).txt")
        let lines = offsets.map { "read -q \($0) \(byteCount)\n" }.joined()
        try lines.write(to: script, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(at: script) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["qemu-io", "-r", "-f", "qcow2", image]
        process.standardInput = try FileHandle(forReadingFrom: script)
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw ValidationError("qemu-io failed.") }
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state ^ state >> 33) &* 0xFF51_AFD7_ED55_8CCD
        }
    }
}
