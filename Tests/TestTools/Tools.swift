// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Foundation

/// The real tools, as child processes.
public enum Tool {
    /// What a tool printed, and how it ended.
    public struct Result: Sendable {
        /// The exit status, or the number of the signal that ended it.
        public let status: Int32
        /// What it printed on standard output.
        public let output: String
        /// What it printed on standard error.
        public let errors: String
        /// Whether a signal ended it.
        public let wasKilled: Bool
    }

    /// A tool that is missing or failed.
    public struct Failed: Error, CustomStringConvertible {
        /// What went wrong, with the tool's output.
        public let description: String

        /// A failure with a text of one's own.
        public init(description: String) { self.description = description }
    }

    /// Whether a tool can be run here; tests that need it are skipped where not.
    public static func isInstalled(_ name: String) -> Bool { path(of: name) != nil }

    /// Where a tool is, by its name or its path.
    public static func path(of name: String) -> String? {
        if name.contains("/") { return FileManager.default.isExecutableFile(atPath: name) ? name : nil }
        let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":")
        return folders.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Our own command, beside the tests: both were built into one folder.
    public static let qsnap: String = {
        let bundles = Bundle.allBundles.filter { $0.bundlePath.hasSuffix(".xctest") }.map(\.bundleURL)
        let neighbours = bundles + [Bundle.main.executableURL].compactMap { $0 }
        let candidates = neighbours.map { $0.deletingLastPathComponent().appendingPathComponent("qsnap").path }
        return candidates.first { FileManager.default.isExecutableFile(atPath: $0) } ?? "qsnap"
    }()

    /// Runs a tool to its end, whatever its status.
    public static func run(
        _ name: String, _ arguments: [String], environment: [String: String] = [:], input: String = ""
    ) throws -> Result {
        guard let path = path(of: name) else { throw Failed(description: "\(name) is not installed") }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        if !environment.isEmpty {
            process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        }
        let output = Pipe()
        process.standardOutput = output
        // A file, which takes any number of messages while standard output is being read.
        let errorPath = NSTemporaryDirectory() + "qcow2-errors-" + UUID().uuidString
        guard FileManager.default.createFile(atPath: errorPath, contents: nil),
            let errors = FileHandle(forUpdatingAtPath: errorPath)
        else { throw Failed(description: "no file for the errors of \(name) in \(errorPath)") }
        try FileManager.default.removeItem(atPath: errorPath)
        process.standardError = errors
        let standardInput = Pipe()
        process.standardInput = standardInput
        try process.run()
        // No test says more than a pipe holds. A tool that ended without reading is no reason for a signal to end us.
        withoutBrokenPipeSignal { try? standardInput.fileHandleForWriting.write(contentsOf: Data(input.utf8)) }
        try standardInput.fileHandleForWriting.close()
        let outputData = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        try errors.seek(toOffset: 0)
        let errorData = try errors.readToEnd() ?? Data()
        return Result(
            status: process.terminationStatus, output: String(decoding: outputData, as: UTF8.self),
            errors: String(decoding: errorData, as: UTF8.self), wasKilled: process.terminationReason != .exit)
    }

    /// Keeps SIGPIPE from this thread while it writes; children that start meanwhile aren't touched.
    private static func withoutBrokenPipeSignal(_ body: () -> Void) {
        var (set, old) = (sigset_t(), sigset_t())
        // SAFETY: the calls write to the sets, which are ours.
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGPIPE)
        unsafe pthread_sigmask(SIG_BLOCK, &set, &old)
        body()
        var none = timespec()
        // Takes the signal that is pending, if one is.
        while unsafe sigtimedwait(&set, nil, &none) == SIGPIPE {}
        unsafe pthread_sigmask(SIG_SETMASK, &old, nil)
    }

    /// Runs a tool that must succeed, and returns its output.
    @discardableResult
    public static func check(_ name: String, _ arguments: [String], input: String = "") throws -> String {
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
public final class TemporaryFolder: Sendable {
    /// The folder's path.
    public let path: String

    /// Creates an empty folder, in the system's folder for such or in another.
    public init(in parent: String? = nil) throws {
        path = (parent.map { $0 + "/" } ?? NSTemporaryDirectory()) + "qcow2-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of a file in the folder.
    public func file(_ name: String) -> String { "\(path)/\(name)" }
}
