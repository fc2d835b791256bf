// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How an operation that writes goes about it.
public struct WriteOptions: Sendable {
    /// Whether the space of freed clusters is given back to the file system at once, and a free tail is cut off.
    public var discardsFreedClusters = true
    /// About how many bytes of memory to count references in, at least 1 MiB.
    ///
    /// An image whose clusters don't fit is counted in several passes; the default is enough for one pass of 1 TiB of
    /// clusters of 64 KiB.
    public var memoryBudget = 72 << 20
    /// Called between batches of work, from the thread that does it.
    ///
    /// When it returns false the operation stops with ``QCOW2Error/Code/cancelled``, and leaves the image as it was;
    /// or, if the commit was already made, it succeeds but doesn't give back more space.
    public var progress: (@Sendable (Progress) -> Bool)?

    /// The defaults: freed space is given back.
    public init() {}
}

extension Image where S: ~Copyable {
    /// Reads the state, lets `change` say what should be different, plans that and commits it.
    ///
    /// Costs what ``ReferenceCount`` says; and a read and a write of every L2 table whose flags change, and of every
    /// refcount block whose counts change.
    mutating func update(
        _ options: WriteOptions, _ change: (ImageState, inout Proposal) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        try endSession()
        try checkWritable()
        let basis = try commitBasis()
        let state = try ImageState(opened, reading: storage)
        var proposal = Proposal(keeping: state)
        try change(state, &proposal)
        try carryOut(proposal, from: state, basis, options)
    }

    /// Plans a proposal and commits it.
    mutating func carryOut(
        _ proposal: Proposal, from state: ImageState, _ basis: CommitBasis, _ options: WriteOptions
    ) throws(QCOW2Error) {
        var work = WorkMeter(options.progress)
        let update = try UpdatePlanner.plan(
            proposal, from: state, reading: storage, budget: options.memoryBudget, &work)
        try commit(consume update, from: basis, discarding: options.discardsFreedClusters, &work)
    }

    /// Reads the state, lets `change` say what should be different, and plans that without writing.
    func plan(
        budget: Int, _ work: inout WorkMeter, _ change: (ImageState, inout Proposal) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> MetadataUpdate {
        try checkChangeable()
        let state = try ImageState(opened, reading: storage)
        var proposal = Proposal(keeping: state)
        try change(state, &proposal)
        return try UpdatePlanner.plan(proposal, from: state, reading: storage, budget: budget, &work)
    }

    /// Refuses, by name, every image that must not be written, or can't be.
    func checkWritable() throws(QCOW2Error) {
        guard storage.isWritable else {
            throw QCOW2Error(.readOnly, "'\(storage.name)' was opened for reading only.")
        }
        try checkChangeable()
    }

    /// Refuses, by name, every image that must not be changed.
    private func checkChangeable() throws(QCOW2Error) {
        let place = HostOffset(UInt64(Header.Layout.incompatibleFeatures.offset))
        let features = header.incompatibleFeatures
        if features.contains(.corrupt) {
            throw QCOW2Error(
                .needsRepair, "'\(storage.name)' is marked corrupt; repair it first, with qsnap check --repair all.",
                at: place)
        }
        if features.contains(.dirty) {
            throw QCOW2Error(
                .needsRepair,
                "'\(storage.name)' is marked dirty: the last writer didn't close it; repair it first, "
                    + "with qsnap check --repair all.", at: place)
        }
        if features.contains(.externalDataFile) {
            throw QCOW2Error(
                .unsupported, "'\(storage.name)' keeps its data in an external data file, which isn't written.",
                at: place)
        }
    }
}
