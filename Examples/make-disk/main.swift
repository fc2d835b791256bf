// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

// Makes a disk, fills it, snapshots it, changes it, and reads both states: all without another tool.
// Usage: make-disk IMAGE

import QCOW2

guard let path = CommandLine.arguments.dropFirst().first else { throw UsageError() }

var image = try Image.create(path, NewImage(virtualSize: 1 << 30))
try image.write(Array("before\n".utf8), at: GuestOffset(0))
try image.createSnapshot(named: "before")
try image.write(Array("after\n".utf8), at: GuestOffset(0))
try image.flush()

for state in [DiskState.snapshot(.name("before")), .active] {
    let line = try image.read(7, at: GuestOffset(0), of: state).prefix { $0 != UInt8(ascii: "\n") }
    print(String(decoding: line, as: UTF8.self))
}

struct UsageError: Error {}
