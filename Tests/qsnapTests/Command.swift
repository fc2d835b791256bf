// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools
import Testing

/// The built command, run as users run it.
enum Command {
    /// Runs the command to its end.
    ///
    /// With a script, bash runs that instead, in which `"$@"` is the command with its arguments.
    static func run(
        _ arguments: [String], via script: String? = nil, environment: [String: String] = ["TZ": "UTC"]
    ) throws -> Tool.Result {
        guard let script else { return try Tool.run(Tool.qsnap, arguments, environment: environment) }
        return try Tool.run("bash", ["-c", script, "bash", Tool.qsnap] + arguments, environment: environment)
    }
}

/// Checks a failed command: its status, nothing on standard output, one line on standard error with all words.
func expectOneSentence(
    _ result: Tool.Result, status: Int32, naming path: String, _ words: [String],
    sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(result.status == status && !result.wasKilled, "\(result.errors)", sourceLocation: sourceLocation)
    #expect(result.output.isEmpty, sourceLocation: sourceLocation)
    #expect(result.errors.hasPrefix("qsnap: "), "\(result.errors)", sourceLocation: sourceLocation)
    #expect(result.errors.hasSuffix("\n"), sourceLocation: sourceLocation)
    #expect(!result.errors.dropLast().contains { $0.isNewline }, "\(result.errors)", sourceLocation: sourceLocation)
    for word in [path] + words {
        #expect(result.errors.contains(word), "\(result.errors)", sourceLocation: sourceLocation)
    }
}
