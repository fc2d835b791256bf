// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

// Prints the first line of text at the start of a disk: of the active state, or of a snapshot. Usage: read-state IMAGE [SNAPSHOT]

import QCOW2

let arguments = CommandLine.arguments.dropFirst()
guard let path = arguments.first else { throw UsageError() }

let image = try Image.open(path, for: .reading)
let snapshot = arguments.dropFirst().first
let state = snapshot.map { DiskState.snapshot(SnapshotSelector(parsing: $0)) } ?? .active
let bytes = try image.read(512, at: GuestOffset(0), of: state)
print(String(decoding: bytes.prefix { $0 != 0 && $0 != UInt8(ascii: "\n") }, as: UTF8.self))

struct UsageError: Error {}
