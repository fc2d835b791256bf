// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Takes the session out, or begins one.
    ///
    /// Beginning one counts all references, as the snapshot verbs do; and clears every autoclear bit in a commit of its
    /// own, before anything changes.
    mutating func takeSession() throws(QCOW2Error) -> WriteSession {
        if let session = session.take() { return session }
        try checkWritable()
        guard header.encryption == .none else {
            throw QCOW2Error(.unsupported, "The guest's data in '\(storage.name)' is encrypted, which isn't written.")
        }
        try settle()
        if !header.autoclearFeatures.isEmpty {
            let (name, policy) = (storage.name, guestWriteOptions.bitmaps)
            try update(WriteOptions()) { (state, proposal) throws(QCOW2Error) in
                if state.hasTrustedBitmaps, policy == .refuse { throw .activeBitmaps(name, "write") }
                proposal.dropsBitmaps = true
            }
        }
        try checkUnchanged()
        let state = try ImageState(opened, reading: storage)
        let blocks = try BlockSurvey.verified(state, reading: storage, budget: guestWriteOptions.memoryBudget)
        let l1 = try state.readSoundTree(ImageState.activeTree, from: storage)
        return WriteSession(
            state, blocks, l1, BackingAccess(exists: hasBackingFile, reader: guestWriteOptions.backingReader))
    }

    /// Commits what guest writes have pending, and ends the session: something else is about to change the image.
    mutating func endSession() throws(QCOW2Error) {
        guard var session = session.take() else { return }
        do throws(QCOW2Error) { try commit(&session) } catch {
            self.session = session.isLost ? nil : session
            throw error
        }
    }
}

extension BlockSurvey {
    /// Surveys an image that is to stay as it is, and checks that no refcount is too low.
    static func verified<S: Storage & ~Copyable>(
        _ state: ImageState, reading storage: borrowing S, budget: Int
    ) throws(QCOW2Error) -> BlockSurvey {
        var work = WorkMeter(nil)
        let uses = [UInt32](repeating: 1, count: state.treeCount)
        let parts = state.l1Parts(uses: uses, activeTree: ImageState.activeTree)
        let tables = try state.l2Tables(parts, reading: storage, &work)
        if let blocks = try count(state, tables, storage, budget, UInt16.self) { return blocks }
        if let blocks = try count(state, tables, storage, budget, UInt32.self) { return blocks }
        if let blocks = try count(state, tables, storage, budget, UInt64.self) { return blocks }
        throw .overflow("number of references")
    }

    private static func count<Lane: FixedWidthInteger & UnsignedInteger & Sendable, S: Storage & ~Copyable>(
        _ state: ImageState, _ tables: L2Tables, _ storage: borrowing S, _ budget: Int, _: Lane.Type
    ) throws(QCOW2Error) -> BlockSurvey? {
        var work = WorkMeter(nil)
        var count = ReferenceCount<Lane>(state, tables, budget: budget)
        return try count.count(reading: storage, &work) ? count.blocks : nil
    }
}
