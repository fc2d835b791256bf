// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One state of the disk.
public enum DiskState: Hashable, Sendable {
    /// What the guest runs on.
    case active
    case snapshot(SnapshotSelector)
}

/// Where the tables of one state start, and what they describe.
struct StateTree: Hashable, Sendable {
    let l1TableOffset: HostOffset
    let l1EntryCount: UInt32
    /// Bytes of the disk in this state.
    let virtualSize: UInt64
    /// Bytes of VM state behind the disk; zero in the active state, which doesn't record it.
    let vmStateSize: UInt64
}

extension Image where S: ~Copyable {
    /// - Throws: ``QCOW2Error/Code/noSuchSnapshot`` or ``QCOW2Error/Code/ambiguousSnapshot``.
    func tree(of state: DiskState) throws(QCOW2Error) -> StateTree {
        switch state {
        case .active:
            StateTree(
                l1TableOffset: header.l1TableOffset, l1EntryCount: header.l1EntryCount, virtualSize: header.size,
                vmStateSize: 0)
        case .snapshot(let selector): try tree(ofSnapshotAt: try index(of: selector))
        }
    }

    /// - Throws: ``QCOW2Error/Code/corrupt`` for an L1 table that is too short for the disk.
    func tree(ofSnapshotAt index: Int) throws(QCOW2Error) -> StateTree {
        let entry = entries[index]
        try entry.checkL1EntryCount(in: header)
        return StateTree(
            l1TableOffset: entry.l1TableOffset, l1EntryCount: entry.l1EntryCount,
            virtualSize: entry.diskSize ?? header.size, vmStateSize: entry.vmStateSize)
    }

    /// Refuses images whose guest data isn't in the image file.
    ///
    /// Section "5.3 External data file".
    func checkDataIsHere() throws(QCOW2Error) {
        guard header.incompatibleFeatures.contains(.externalDataFile) else { return }
        let name = opened.extensions.last(.externalDataFileName)?.data ?? []
        throw QCOW2Error(
            .unsupported, "The guest's data is in the external data file '\(escaped(name))', which isn't opened.")
    }
}

extension EncryptionMethod {
    /// Refuses to hand out what is encrypted.
    func checkReadable() throws(QCOW2Error) {
        switch self {
        case .none: return
        case .aes: throw QCOW2Error(.unsupported, "The guest's data is encrypted with AES, which can't be read yet.")
        case .luks: throw QCOW2Error(.unsupported, "The guest's data is encrypted with LUKS, which can't be read yet.")
        }
    }
}
