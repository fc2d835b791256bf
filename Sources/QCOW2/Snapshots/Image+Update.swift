// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How an operation that writes goes about it.
public struct WriteOptions: Hashable, Sendable {
    /// Whether the space of freed clusters is given back to the file system at once, and a free tail is cut off.
    public var discardsFreedClusters = true

    /// The defaults: freed space is given back.
    public init() {}
}

extension Image where S: ~Copyable {
    /// Reads the state, lets `change` say what should be different, plans that and commits it.
    ///
    /// Costs one read of every distinct L2 table of all trees, and memory for two counts per cluster of the file.
    mutating func update(
        _ options: WriteOptions, _ change: (ImageState, inout Proposal) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        try checkWritable()
        let state = try ImageState(opened, reading: storage)
        var proposal = Proposal(keeping: state)
        try change(state, &proposal)
        let update = try UpdatePlanner.plan(proposal, from: state, reading: storage)
        try commit(update, discarding: options.discardsFreedClusters)
    }

    /// Refuses, by name, every image that must not be written.
    private func checkWritable() throws(QCOW2Error) {
        guard storage.isWritable else {
            throw QCOW2Error(.readOnly, "'\(storage.name)' was opened for reading only.")
        }
        let place = HostOffset(UInt64(Header.Layout.incompatibleFeatures.offset))
        let features = header.incompatibleFeatures
        if features.contains(.corrupt) {
            throw QCOW2Error(
                .needsRepair, "'\(storage.name)' is marked corrupt; repair it first, with qemu-img check -r all.",
                at: place)
        }
        if features.contains(.dirty) {
            throw QCOW2Error(
                .needsRepair,
                "'\(storage.name)' is marked dirty: the last writer didn't close it; repair it first, "
                    + "with qemu-img check -r all.", at: place)
        }
        if features.contains(.externalDataFile) {
            throw QCOW2Error(
                .unsupported, "'\(storage.name)' keeps its data in an external data file, which allows no snapshots.",
                at: place)
        }
    }
}
