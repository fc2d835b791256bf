// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing
import TestTools

/// Ways of starting the command with a standard output that takes nothing.
private enum Output {
    /// The reader has gone before the command starts.
    static let closedPipe = #"exec 3> >(exit 0); wait $!; exec "$@" >&3 3>&-"#
    static let full = #"exec "$@" >/dev/full"#
    static let closed = #"exec "$@" >&-"#
}

/// What happens when nobody can be told: the image is as it was, or changed as a sentence says.
@Suite(.enabled(if: Tool.isInstalled("bash"), "needs bash"))
struct StandardStreamTests {
    @Test("A reader that has gone ends a list without a word", arguments: [[], ["--json"]])
    func closedPipe(_ flags: [String]) throws {
        let image = try TestImage()
        let result = try image.run(["list"] + flags, via: Output.closedPipe)
        #expect(result.status == 1 && !result.wasKilled)
        #expect(result.errors.isEmpty)
    }

    @Test("A reader that goes in the middle gets whole lines")
    func head() throws {
        let image = try TestImage()
        let result = try Command.run(
            ["list"] + Array(repeating: image.path, count: 2000), via: #""$@" | head -n 2; echo "${PIPESTATUS[0]}""#)
        let lines = result.output.split(separator: "\n")
        try #require(lines.count == 3)
        #expect(lines[0] == "\(image.path):" && lines[1].hasPrefix("ID  NAME"))
        #expect(lines[2] == "1" && result.errors.isEmpty)
    }

    @Test(
        "A list that can't be written is a failure",
        arguments: [(Output.full, "No space left on device"), (Output.closed, "Bad file descriptor")])
    func list(_ script: String, _ reason: String) throws {
        let image = try TestImage()
        let result = try image.run(["list"], via: script)
        #expect(result.status == 1)
        #expect(result.errors == "qsnap: Writing to standard output failed: \(reason).\n")
        // Images that can't be listed are still named.
        let both = try Command.run(["list", image.folder.file("nosuch"), image.path], via: script)
        #expect(both.status == 1)
        #expect(both.errors.split(separator: "\n").count == 2 && both.errors.contains("nosuch'"))
    }

    @Test(
        "A verb that writes has done its work, and says so",
        arguments: [
            (Output.full, "No space left on device"), (Output.closedPipe, "Broken pipe"),
            (Output.closed, "Bad file descriptor"),
            (#"exec "$@" >&- <&-"#, "Bad file descriptor"),
        ], [[], ["--json"]])
    func write(_ output: (script: String, reason: String), _ flags: [String]) throws {
        let image = try TestImage()
        let result = try image.run(["create", "new"] + flags, via: output.script)
        expectOneSentence(
            result, status: 1, naming: image.path,
            [
                "Created snapshot 'new' with ID 2 in '\(image.path)', but writing to standard output failed: "
                    + "\(output.reason)."
            ])
        #expect(try image.names == ["first", "new"])
    }

    @Test(
        "What is printed never lands in the image, whichever streams are closed", arguments: writingVerbs,
        [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
    func closedStreams(_ words: [String], _ closing: String) throws {
        let image = try TestImage()
        let content = try image.content()
        _ = try image.run(words, via: #"exec "$@" \#(closing)"#)
        #expect(try words[0] == "apply" || image.content() == content)
        _ = try image.run(["create", ""], via: #"exec "$@" \#(closing)"#)
        try image.check("create", "after")
        #expect(try image.names.last == "after")
    }
}
