// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import Testing

/// The real tools, as child processes.
enum Tool {
    struct Result {
        let status: Int32
        let output: String
        let errors: String
    }

    struct Failed: Error, CustomStringConvertible {
        let description: String
    }

    /// Whether a tool can be run here; tests that need it are skipped where not.
    static func isInstalled(_ name: String) -> Bool { path(of: name) != nil }

    static func path(of name: String) -> String? {
        if name.contains("/") { return FileManager.default.isExecutableFile(atPath: name) ? name : nil }
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":")
        return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Our own command, beside the test bundle that was built with it.
    static let qsnap: String = {
        let bundle = CommandLine.arguments.first { $0.contains(".xctest") } ?? ""
        let folder = bundle.components(separatedBy: "/").prefix { !$0.hasSuffix(".xctest") }.joined(separator: "/")
        return folder + "/qsnap"
    }()

    /// Runs a tool to its end, whatever its status.
    static func run(
        _ name: String, _ arguments: [String], environment: [String: String] = [:], input: String = ""
    ) throws -> Result {
        guard let path = path(of: name) else { throw Failed(description: "\(name) is not installed") }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        if !environment.isEmpty {
            process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        }
        let (output, errors) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        let standardInput = Pipe()
        process.standardInput = standardInput
        try process.run()
        // No test says more than a pipe holds.
        try standardInput.fileHandleForWriting.write(contentsOf: Data(input.utf8))
        try standardInput.fileHandleForWriting.close()
        // No tool here prints more to standard error than a pipe holds.
        let outputData = output.fileHandleForReading.readDataToEndOfFile()
        let errorData = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus, output: String(decoding: outputData, as: UTF8.self),
            errors: String(decoding: errorData, as: UTF8.self))
    }

    /// Runs a tool that must succeed, and returns its output.
    @discardableResult
    static func check(_ name: String, _ arguments: [String], input: String = "") throws -> String {
        let result = try run(name, arguments, input: input)
        guard result.status == 0 else {
            throw Failed(
                description: "\(name) \(arguments.joined(separator: " ")): status \(result.status)\n"
                    + result.output + result.errors)
        }
        return result.output
    }
}

/// A folder for one test, removed with the value's last owner.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "qcow2-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }
}
