// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Checks what the entries of a snapshot table say, apart from where their L1 tables are.
///
/// Invariants I-25, I-27 and I-28.
struct SnapshotRules {
    let header: Header
    private var ids: Set<[UInt8]> = []
    /// Whether some L1 table is shorter than it was, so that what it lacks may still be needed.
    private(set) var hidesReferences = false

    init(header: Header) { self.header = header }

    /// Checks an entry.
    ///
    /// - Returns: Whether it must be written anew to be as it should.
    mutating func check(_ found: SnapshotTableReader.Found, _ sink: FindingSink) -> Bool {
        let entry = found.entry
        let name = "snapshot '\(escaped(entry.id))'"
        func add(_ rule: FindingRule, _ message: @autoclosure () -> String) {
            sink.add(rule, at: found.offset, in: "snapshot table", index: UInt64(found.index), message())
        }
        if !checkSizes(entry, name, add) { hidesReferences = true }
        if entry.id.isEmpty { add(.snapshotIDUnusual, "A snapshot has an empty ID.") }
        if !ids.insert(entry.id).inserted { add(.snapshotIDRepeated, "More than one snapshot has the ID of \(name).") }
        for (what, bytes) in [("ID", entry.id), ("name", entry.name)] {
            let rule: FindingRule = what == "ID" ? .snapshotIDUnusual : .snapshotNameUnusual
            if bytes.contains(0) { add(rule, "The \(what) of \(name) contains a zero byte, where QEMU would cut it.") }
            if !bytes.isUTF8 { add(rule, "The \(what) of \(name) is not valid UTF-8.") }
        }
        guard !header.isVersion2, found.extraByteCount < 16 else { return false }
        add(.snapshotEntryIncomplete, "The entry of \(name) lacks the disk size, which version 3 requires.")
        return true
    }

    /// Checks the sizes of disk and VM state.
    ///
    /// - Returns: Whether the L1 table is long enough for them.
    private func checkSizes(
        _ entry: SnapshotTableEntry, _ name: String, _ add: (FindingRule, @autoclosure () -> String) -> Void
    ) -> Bool {
        let geometry = header.geometry
        let diskSize = entry.diskSize ?? header.size
        // An entry without a size means the header's, which is checked there.
        if let size = entry.diskSize {
            if size >= 1 << 63 || geometry.l1EntryCount(forDiskSize: size) > ImageGeometry.maximumL1EntryCount {
                add(.snapshotDiskSize, "The disk size of \(name), \(size) bytes, is larger than an image can map.")
            } else if size % ImageGeometry.sectorSize != 0, size != header.size {
                add(.snapshotDiskSize, "The disk size of \(name), \(size) bytes, is no multiple of 512.")
            }
        }
        do throws(QCOW2Error) { try entry.checkL1EntryCount(in: header) } catch {
            add(.snapshotL1TooSmall, error.message)
            return false
        }
        guard entry.vmStateSize > 0 else { return true }
        let first = geometry.l1EntryCount(forDiskSize: diskSize)
        let needed = geometry.l1EntryCount(forDiskSize: entry.vmStateSize)
        if first > UInt64(entry.l1EntryCount) || needed > UInt64(entry.l1EntryCount) - first {
            add(
                .snapshotVMState,
                "The VM state of \(name), \(entry.vmStateSize) bytes, doesn't fit behind its disk in its L1 table.")
            return false
        }
        return true
    }
}

extension [UInt8] {
    /// Whether the bytes are valid UTF-8.
    fileprivate var isUTF8: Bool { String(validating: self, as: UTF8.self) != nil }
}
