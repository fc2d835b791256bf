// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

public import QCOW2
import QCOW2Testing

/// All that a user can see of an image: its snapshots, and the content of every state.
public struct Contents: Hashable, Sendable {
    /// IDs and names of the snapshots.
    public let names: [String]
    /// The bytes of the active state, then of each snapshot at its own size.
    public let states: [[UInt8]]

    /// Reads everything.
    public init<S: Storage & ~Copyable>(of image: borrowing Image<S>) throws(QCOW2Error) {
        names = image.snapshots.map { "\($0.id) \($0.name)" }
        var states = [try image.read(Int(image.virtualSize), at: GuestOffset(0))]
        for snapshot in image.snapshots {
            states.append(try image.read(Int(snapshot.diskSize), at: GuestOffset(0), of: .snapshot(.id(snapshot.id))))
        }
        self.states = states
    }

    /// Reads everything of an image in memory.
    public init(of bytes: [UInt8]) throws {
        let image = try Image(storage: InMemoryStorage(bytes, isWritable: false))
        try self.init(of: image)
    }
}
