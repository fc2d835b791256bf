// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

@Suite struct InUseTests {
    static let readings = [["list"], ["list", "--json"], ["delete", "--all", "--dry-run"]]

    /// Checks every verb on an image that somebody uses.
    private func expectInUse(_ image: TestImage, isRead: Bool) throws {
        for words in writingVerbs { try image.expectRefusal(words, status: 5, saying: "in use by") }
        for words in Self.readings {
            let result = try image.run(words)
            #expect(result.status == (isRead ? 0 : 5))
            if !isRead { #expect(result.errors.contains("'\(image.path)' is being written by")) }
        }
        for flag in ["--force-share", "-U"] { #expect(try image.check("list", flag).contains("first")) }
    }

    @Test("An image that somebody of ours uses is refused", arguments: [FileStorage.Access.reading, .writing])
    func ours(_ access: FileStorage.Access) throws {
        let image = try TestImage()
        let opened = try Image.open(image.path, for: access)
        try expectInUse(image, isRead: access == .reading)
        _ = opened.close()
    }

    @Test(
        "An image that QEMU uses is refused", .enabled(if: Tool.isInstalled("qemu-io"), "needs qemu-utils"),
        arguments: [true, false])
    func qemu(_ isReadOnly: Bool) throws {
        let image = try TestImage()
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try #require(Tool.path(of: "qemu-io")))
        process.arguments = (isReadOnly ? ["-r"] : []) + [image.path]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        // Its answer to the first command says that it has the image open.
        try input.fileHandleForWriting.write(contentsOf: Data("length\n".utf8))
        var answer = ""
        while !answer.contains("KiB") {
            let data = output.fileHandleForReading.availableData
            guard !data.isEmpty else { break }
            answer += String(decoding: data, as: UTF8.self)
        }
        try expectInUse(image, isRead: isReadOnly)
        try input.fileHandleForWriting.close()
        process.waitUntilExit()
        try image.check("create", "new")
    }

    @Test(
        "Of many that write at once each wins or is refused, and none is lost", .enabled(if: Tool.isInstalled("bash")))
    func race() throws {
        let image = try TestImage()
        let script = """
            for number in {1..12}; do { "$@" "n$number" >/dev/null 2>&1; echo "n$number $?"; } & done; wait
            """
        let lines = try image.run(["create"], via: script).output.split(separator: "\n")
        #expect(lines.count == 12)
        #expect(lines.allSatisfy { $0.hasSuffix(" 0") || $0.hasSuffix(" 5") }, "\(lines)")
        let winners = lines.filter { $0.hasSuffix(" 0") }.map { String($0.dropLast(2)) }
        #expect(try Set(image.names) == Set(winners + ["first"]))
    }
}
