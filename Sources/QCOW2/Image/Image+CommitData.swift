// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// Puts everything that a session has pending on the disk: the committer's part of guest writes.
    ///
    /// With metadata to change it is one commit, whose first flush covers the data; without, one flush.
    ///
    /// What the session read when it began isn't compared again, but for the header.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``, ``QCOW2Error/Code/inUse``, and what planning throws. If a flush failed, or the switch, the session
    ///   is lost: nobody knows which of its data the disk has, and flushing again would prove nothing. The image goes
    ///   on with the last committed state. Otherwise the session is as before.
    mutating func commit(_ session: inout WriteSession) throws(QCOW2Error) {
        guard session.hasChanges else {
            guard session.hasUnflushedData else { return }
            do throws(QCOW2Error) { try storage.flush() } catch {
                session.isLost = true
                throw error
            }
            return session.hasUnflushedData = false
        }
        let basis = try commitBasis()
        let (update, next) = try session.planned(opened, from: storage)
        var work = WorkMeter(nil)
        hasFailedFlush = false
        do throws(QCOW2Error) { try commit(update, from: basis, discarding: false, &work) } catch {
            session.isLost = hasFailedFlush
            throw error
        }
        session = next
        let freed = session.recycle()
        guard guestWriteOptions.discardsFreedClusters else { return }
        // As after any commit: a failure here costs only space. Tiny holes aren't worth a call each.
        let smallest = max(1, 65536 >> UInt64(session.geometry.clusterBits))
        for run in freed where run.count >= smallest {
            let byteCount = run.count << UInt64(session.geometry.clusterBits)
            try? storage.punchHole(at: session.geometry.offset(ofCluster: run.first), byteCount: byteCount)
        }
    }
}
