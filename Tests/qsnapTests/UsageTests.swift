// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import TestTools
import Testing

@Suite struct UsageTests {
    @Test(
        "A wrong command line is refused with the usage, and changes nothing",
        arguments: [
            ["create"], ["create", "IMAGE", "a", "b"], ["create", "IMAGE", "-z"], ["create", "IMAGE", "-name"],
            ["apply", "IMAGE"], ["apply", "IMAGE", "--save-current", "first"], ["apply", "IMAGE", "first", "second"],
            ["delete", "IMAGE"], ["delete", "IMAGE", "first", "--all"],
            ["delete", "IMAGE", "--all", "--keep-last", "1"],
            ["delete", "IMAGE", "--keep-last", "-1"], ["delete", "IMAGE", "--keep-last=-1"],
            ["delete", "IMAGE", "--keep-last", "x"], ["delete", "IMAGE", "--older-than", "7"],
            ["delete", "IMAGE", "--older-than", "7y"], ["delete", "IMAGE", "--older-than", "d"],
            ["delete", "IMAGE", "--older-than=-1d"], ["delete", "IMAGE", "--older-than", "9223372036854775807w"],
            ["delete", "IMAGE", "--older-than", "99999999999999999999s"], ["rename", "IMAGE", "first"],
            ["create", "IMAGE", "a", "--memory", "64"], ["create", "IMAGE", "a", "--memory", "1023K"],
            ["create", "IMAGE", "a", "--memory", "9999999999999999G"], ["create", "IMAGE", "a", "--memory=-1M"],
            ["rename", "IMAGE", "first", "a", "b"], ["list"], ["list", "IMAGE", "--frobnicate"],
            ["frobnicate", "IMAGE"],
            ["--frobnicate"],
        ])
    func usage(_ arguments: [String]) throws {
        let image = try TestImage()
        let before = try image.bytes
        let result = try Command.run(arguments.map { $0 == "IMAGE" ? image.path : $0 })
        #expect(result.status == 64 && !result.wasKilled)
        #expect(result.output.isEmpty)
        #expect(result.errors.hasPrefix("Error: ") && result.errors.contains("\nUsage: qsnap "))
        #expect(try image.bytes == before)
    }
}
