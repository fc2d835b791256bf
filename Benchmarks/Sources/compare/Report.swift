// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation

/// The rows that were measured, and where.
struct Report: Codable {
    /// Processor, memory, file system, kernel, and the version of qemu-img.
    var machine = Report.thisMachine
    var results: [Result] = []

    init() {}

    /// Reads a report that was written before; `nil` if there is none.
    init?(contentsOf path: String) throws {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
        machine = Self.thisMachine
    }

    mutating func add(_ result: Result) {
        results.removeAll { $0.name == result.name }
        results.append(result)
        results.sort { $0.position < $1.position }
    }

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(self).write(to: URL(fileURLWithPath: path))
    }

    private static var thisMachine: String {
        let processor =
            (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n")
            .first { $0.hasPrefix("model name") }?.split(separator: ":").last?.trimmingCharacters(in: .whitespaces)
        let information = ProcessInfo.processInfo
        let parts = [
            processor ?? "unknown processor", "\(information.activeProcessorCount) cores",
            "\(information.physicalMemory >> 30) GiB", output(["uname", "-sr"]),
            output(["qemu-img", "--version"]).split(separator: "\n").first.map(String.init) ?? "",
        ]
        return parts.joined(separator: ", ")
    }

    private static func output(_ command: [String]) -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = command
        let pipe = Pipe()
        process.standardOutput = pipe
        guard (try? process.run()) != nil else { return "" }
        let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
