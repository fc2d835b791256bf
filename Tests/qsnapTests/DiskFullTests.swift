// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Fixtures
import TestTools
import Testing

@Suite(.enabled(if: Tool.isInstalled("bash"), "needs bash"))
struct DiskFullTests {
    @Test(
        "A file size limit fails the command and leaves every byte; enough room lets it through",
        arguments: writingVerbs, ["v3-512", "v3-4k", "v3-16k-extended"])
    func limit(_ words: [String], _ name: String) throws {
        let original = try TestImage(name).bytes
        var isDone = false
        var step = 1
        var refusals = 0
        while !isDone, step < 1024 {
            // Whole KiB from the image's length on, so that many a write is cut short.
            let room = step - 1
            let image = try TestImage(name)
            let limit = (original.count + 1023) / 1024 + room
            let result = try image.run(words, via: #"ulimit -f \#(limit); exec "$@""#)
            isDone = result.status == 0
            if !isDone {
                refusals += 1
                expectOneSentence(result, status: 1, naming: image.path, ["File too large", "free some space"])
                #expect(try image.bytes == original)
            }
            step *= 2
        }
        #expect(isDone && refusals > 0)
    }

    private static let canMount: Bool = {
        guard let folder = try? TemporaryFolder() else { return false }
        let result = try? Tool.run("unshare", ["-rm", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder.path])
        return result?.status == 0
    }()

    @Test(
        "A full file system fails the command and leaves every byte",
        .enabled(if: canMount, "needs the right to mount in a namespace of one's own"), arguments: writingVerbs)
    func full(_ words: [String]) throws {
        let folder = try TemporaryFolder()
        let original = Fixtures.path("v3-4k.qcow2")
        // One page is left behind the image, and the command needs more than one cluster.
        let script = """
            mount -t tmpfs -o size=72k tmpfs '\(folder.path)' && cd '\(folder.path)' &&
                cp --sparse=never '\(original)' disk.qcow2 || exit 99
            "$@"; status=$?
            cmp '\(original)' disk.qcow2 >&2 || exit 98
            exit $status
            """
        let result = try Tool.run(
            "unshare", ["-rm", "bash", "-c", script, "bash", Tool.qsnap, words[0], "disk.qcow2"] + words.dropFirst())
        expectOneSentence(
            result, status: 1, naming: "'disk.qcow2'", ["No space left on device; free some space, then try again"])
    }
}
