// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A snapshot inside an image, as its entry in the snapshot table describes it.
public struct Snapshot: Hashable, Sendable {
    /// The ID's bytes as they are in the file; the format allows any.
    public let idBytes: [UInt8]
    /// The name's bytes as they are in the file; the format allows any.
    public let nameBytes: [UInt8]
    /// When the snapshot was made.
    public let date: SnapshotDate
    /// Bytes of the disk when the snapshot was made.
    public let diskSize: UInt64
    /// Bytes of VM state: memory and devices of a running machine.
    ///
    /// Zero for a snapshot of the disk alone.
    public let vmStateSize: UInt64
    /// How long the guest had run, in nanoseconds.
    public let vmClock: UInt64
    /// How many instructions the guest had executed; `nil` when that wasn't recorded.
    public let icount: UInt64?

    /// The ID as text; bytes that aren't UTF-8 are replaced.
    public var id: String { String(decoding: idBytes, as: UTF8.self) }
    /// The name as text; bytes that aren't UTF-8 are replaced.
    public var name: String { String(decoding: nameBytes, as: UTF8.self) }

    init(_ entry: SnapshotTableEntry, imageSize: UInt64) {
        idBytes = entry.id
        nameBytes = entry.name
        date = SnapshotDate(seconds: entry.seconds, nanoseconds: entry.nanoseconds)
        diskSize = entry.diskSize ?? imageSize
        vmStateSize = entry.vmStateSize
        vmClock = entry.vmClock
        icount = entry.icount
    }
}

extension Image where S: ~Copyable {
    /// The snapshots in the order of the snapshot table, which is the order of their creation.
    ///
    /// Reads nothing.
    public var snapshots: [Snapshot] { entries.map { Snapshot($0, imageSize: header.size) } }
}
