// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The snapshot table, entry by entry as long as they parse: section 4.
extension Inspection {
    private typealias Layout = Header.Layout

    mutating func inspectSnapshots<S: Storage & ~Copyable>(
        _ header: LenientHeader, from storage: borrowing S
    ) throws(QCOW2Error) {
        guard header.version ?? 0 >= 2 else { return }
        let offset = HostOffset(header[Layout.snapshotsOffset])
        let count = header[Layout.snapshotCount]
        let place = HostOffset(UInt64(Layout.snapshotsOffset.offset))
        guard count > 0 else {
            if offset.rawValue != 0 {
                report(
                    .staleSnapshotTable,
                    "The header says where a snapshot table is, at \(offset), but counts no snapshots: "
                        + "a running VM deleted its last one.", at: place)
            }
            return
        }
        let byteCount = try readEntries(header, count: count, at: offset, from: storage)
        addTable(
            "snapshot table", at: offset, byteCount: max(1, byteCount), header.geometry?.clusterSize, from: place)
        guard !snapshots.isEmpty else { return }
        let snapshotCount = snapshots.count
        report(
            .internalSnapshots, "The image holds \(snapshotCount) snapshots; each is a state of the disk of its own.",
            at: offset, in: "snapshot table")
        for record in snapshots {
            try work.checkForWish()
            inspect(record, header)
        }
        inspectNumbers()
        inspectOrder()
    }

    /// Reads the entries, and returns the bytes that they take.
    private mutating func readEntries<S: Storage & ~Copyable>(
        _ header: LenientHeader, count: UInt64, at offset: HostOffset, from storage: borrowing S
    ) throws(QCOW2Error) -> UInt64 {
        // A table that would lie in the header's cluster is the header.
        guard offset.rawValue != 0 else { return 0 }
        var byteCount: UInt64 = 0
        do throws(QCOW2Error) {
            var reader = try SnapshotTableReader(
                at: offset, isVersion2: header.version ?? 0 < 3, FileBounds(byteCount: fileByteCount))
            for index in 0..<min(count, UInt64(Header.maximumSnapshotCount)) {
                try work.checkForWish()
                let found = try reader.next(from: storage) { base, rest in
                    guard rest.count > 0 else { return }
                    annotate(
                        "snapshot table entry \(index)", at: base,
                        SnapshotTableEntry.annotatedFields(in: rest, at: base))
                }
                byteCount = UInt64(reader.byteCount)
                snapshots.append(
                    SnapshotRecord(
                        index: Int(index), offset: found.offset,
                        snapshot: Snapshot(found.entry, imageSize: header[Layout.size]),
                        l1TableOffset: found.entry.l1TableOffset, l1EntryCount: found.entry.l1EntryCount))
                inspectExtraData(of: found.entry, Int(found.extraByteCount), header, at: found.offset, index)
            }
        } catch  where error.code == .corrupt {
            let index = UInt64(snapshots.count)
            report(
                .snapshotEntryInvalid, .corruption,
                "Entry \(index) of \(count) in the snapshot table doesn't parse, and hides those behind it: "
                    + error.message, at: error.offset, in: "snapshot table", index: index)
        } catch  where error.code == .inputOutput {
            report(.readFailed, .corruption, error.message, at: error.offset ?? offset)
        }
        return byteCount
    }

    private mutating func inspectExtraData(
        of entry: SnapshotTableEntry, _ byteCount: Int, _ header: LenientHeader, at offset: HostOffset, _ index: UInt64
    ) {
        if header.version ?? 0 >= 3, byteCount < 16 {
            report(
                .snapshotExtraData, .corruption,
                "The snapshot has \(byteCount) bytes of extra data; version 3 needs 16.", at: offset,
                in: "snapshot table", index: index)
        } else if !entry.unknownExtraData.isEmpty {
            report(
                .snapshotExtraData,
                "The snapshot has \(entry.unknownExtraData.count) bytes of extra data that this library doesn't know.",
                at: offset, in: "snapshot table", index: index)
        }
    }

    private mutating func inspect(_ record: SnapshotRecord, _ header: LenientHeader) {
        let snapshot = record.snapshot
        let index = UInt64(record.index)
        let label = "Snapshot \(record.index)"
        func note(_ code: Finding.Code, _ message: @autoclosure () -> String) {
            report(code, .notice, message(), at: record.offset, in: "snapshot table", index: index)
        }
        func complain(_ code: Finding.Code, _ message: @autoclosure () -> String) {
            report(code, .corruption, message(), at: record.offset, in: "snapshot table", index: index)
        }
        if record.l1EntryCount > 0 {
            let name = "L1 table of snapshot '\(escaped(snapshot.idBytes.prefix(64)))'"
            let byteCount = UInt64(record.l1EntryCount) * UInt64(L1Entry.byteCount)
            checkPlace(
                of: name, at: record.l1TableOffset, byteCount: byteCount, header.geometry?.clusterSize,
                from: record.offset)
            if record.l1TableOffset.rawValue > 0, record.l1TableOffset.rawValue < fileByteCount {
                let present = min(byteCount, fileByteCount - record.l1TableOffset.rawValue)
                regions.append(Region(name: name, offset: record.l1TableOffset, byteCount: present, hasSlack: true))
            }
        }
        if snapshot.vmStateSize > 0 {
            note(.vmState, "\(label) holds \(snapshot.vmStateSize) bytes of VM state: the memory of a running machine.")
        }
        if snapshot.diskSize % ImageGeometry.sectorSize != 0 {
            complain(.snapshotDiskSize, "\(label) has a disk of \(snapshot.diskSize) bytes, no whole sectors.")
        } else if let geometry = header.geometry,
            geometry.l1EntryCount(forDiskSize: snapshot.diskSize) > UInt64(record.l1EntryCount)
        {
            complain(
                .snapshotDiskSize,
                "\(label) has a disk of \(snapshot.diskSize) bytes, more than its L1 table maps.")
        } else if snapshot.diskSize != header[Layout.size] & ~(ImageGeometry.sectorSize - 1) {
            note(
                .snapshotDiskSizeDiffers,
                "\(label) has a disk of \(snapshot.diskSize) bytes; the active one has \(header[Layout.size]).")
        }
        if snapshot.date.nanoseconds >= 1_000_000_000 {
            complain(.snapshotDateInvalid, "\(label) has a date with \(snapshot.date.nanoseconds) nanoseconds.")
        } else if snapshot.date.seconds == 0 {
            note(.snapshotDateInvalid, "\(label) has no date.")
        }
        if let why = unusual(snapshot.nameBytes) {
            note(.snapshotNameUnusual, "\(label) has a name that \(why): '\(escaped(snapshot.nameBytes.prefix(64)))'.")
        }
        if decimal(snapshot.idBytes) == nil {
            note(
                .snapshotIDUnusual,
                "\(label) has an ID that no program gives: '\(escaped(snapshot.idBytes.prefix(64)))'.")
        }
    }
}

/// What is odd about a name, if anything.
private func unusual(_ name: [UInt8]) -> String? {
    if name.isEmpty { return "is empty" }
    if name.contains(0) { return "has a zero byte, behind which QEMU shows nothing" }
    guard let text = String(validating: name, as: UTF8.self) else { return "isn't UTF-8" }
    if text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) {
        return "has control characters"
    }
    return name.count > 255 ? "has more than 255 bytes" : nil
}

/// The number that an ID is; `nil` when it isn't one as QEMU writes it.
func decimal(_ id: [UInt8]) -> UInt64? {
    guard !id.isEmpty, id.count <= 20, id.allSatisfy({ (0x30...0x39).contains($0) }), id.count == 1 || id[0] != 0x30
    else { return nil }
    return UInt64(String(decoding: id, as: UTF8.self))
}
