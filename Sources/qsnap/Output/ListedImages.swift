// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The JSON of `list`, printed as it comes together: names may be long, and many.
struct ListedImages {
    private var text = "{\n  \"images\": ["
    private var isEmpty = true
    private var failure: Failure?

    /// Adds an image, with the documented keys.
    mutating func add(_ path: String, virtualSize: UInt64, _ snapshots: [Snapshot], _ usages: [StateUsage]?) {
        let head = JSON.object([("image", .string(path)), ("virtual-size", .number(virtualSize))])
        text += (isEmpty ? "\n    " : ",\n    ") + head.text(indent: "    ").dropLast(6) + ",\n      \"snapshots\": ["
        isEmpty = false
        let indent = "        "
        for index in snapshots.indices {
            text += index == 0 ? "\n" : ",\n"
            text += indent + snapshots[index].json(with: usages?[index].jsonMembers ?? []).text(indent: indent)
            if text.utf8.count >= 1 << 16 { flush() }
        }
        text += snapshots.isEmpty ? "]\n    }" : "\n      ]\n    }"
    }

    /// Prints the end.
    mutating func finish() throws(Failure) {
        text += isEmpty ? "]\n}\n" : "\n  ]\n}\n"
        flush()
        if let failure { throw failure }
    }

    private mutating func flush() {
        do throws(Failure) {
            if failure == nil { try Console.write(text) }
        } catch {
            failure = error
        }
        text = ""
    }
}
