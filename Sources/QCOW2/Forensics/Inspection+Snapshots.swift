// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The snapshot table, entry by entry as long as they parse: section 4.
extension Inspection {
    mutating func inspectSnapshots<S: Storage & ~Copyable>(
        _ reading: ImageReading, from storage: borrowing S
    ) throws(QCOW2Error) {
        let header = reading.header
        let offset = header.snapshotTableOffset
        guard header.snapshotCount > 0 else {
            if offset.rawValue != 0 {
                report(
                    .staleSnapshotTable,
                    "The header says where a snapshot table is, at \(offset), but counts no snapshots: "
                        + "a running VM deleted its last one.", at: Header.Layout.snapshotsOffset.place)
            }
            return
        }
        addTable("snapshot table", at: offset, byteCount: max(1, reading.snapshotTableByteCount))
        let entries = (reading.snapshots + reading.unusableSnapshots).sorted { $0.index < $1.index }
        annotateEntries(entries, reading, from: storage)
        guard !entries.isEmpty else { return }
        report(
            .internalSnapshots, "The image holds \(entries.count) snapshots; each is a state of the disk of its own.",
            at: offset, in: "snapshot table")
        for found in entries {
            try work.checkForWish()
            let record = SnapshotRecord(
                index: found.index, offset: found.offset, snapshot: Snapshot(found.entry, imageSize: header.size),
                l1TableOffset: found.entry.l1TableOffset, l1EntryCount: found.entry.l1EntryCount)
            snapshots.append(record)
            addRegion(
                "L1 table of snapshot '\(escaped(record.snapshot.idBytes.prefix(64)))'", at: record.l1TableOffset,
                byteCount: Self.l1ByteCount(record.l1EntryCount))
            inspect(record, found.entry, header)
        }
        remnants.present = Set(snapshots.map { RemnantCollector.Key($0.snapshot) })
        inspectNumbers()
        inspectOrder()
    }

    /// Shows the entries' fields, and those of the first one that doesn't parse.
    private mutating func annotateEntries<S: Storage & ~Copyable>(
        _ entries: [SnapshotTableReader.Found], _ reading: ImageReading, from storage: borrowing S
    ) {
        func show(_ index: Int, at offset: HostOffset, _ byteCount: Int) {
            let bytes = read(UInt64(byteCount), at: offset, from: storage)
            guard !bytes.isEmpty else { return }
            annotate(
                "snapshot table entry \(index)", at: offset,
                SnapshotTableEntry.annotatedFields(in: bytes.span, at: offset))
        }
        for found in entries {
            guard hasRoomInDump else { return isDumpCut = true }
            show(found.index, at: found.offset, found.byteCount)
        }
        let start = reading.header.snapshotTableOffset
        guard entries.count < Int(reading.header.snapshotCount), start.rawValue != 0 else { return }
        let end = start.saturating(adding: (reading.snapshotTableByteCount + 7) / 8 * 8)
        show(entries.count, at: end, SnapshotTableEntry.maximumByteCount)
    }

    /// Says what is worth knowing of a snapshot; what is wrong with it is the reading's to say.
    private mutating func inspect(_ record: SnapshotRecord, _ entry: SnapshotTableEntry, _ header: Header) {
        let snapshot = record.snapshot
        let label = "Snapshot \(record.index)"
        func note(_ rule: FindingRule, _ message: @autoclosure () -> String) {
            report(rule, message(), at: record.offset, in: "snapshot table", index: UInt64(record.index))
        }
        if !entry.unknownExtraData.isEmpty {
            note(
                .snapshotExtraData,
                "\(label) has \(entry.unknownExtraData.count) bytes of extra data that this library doesn't know.")
        }
        if snapshot.vmStateSize > 0 {
            note(.vmState, "\(label) holds \(snapshot.vmStateSize) bytes of VM state: the memory of a running machine.")
        }
        if snapshot.diskSize != header.size & ~(ImageGeometry.sectorSize - 1) {
            note(
                .snapshotDiskSizeDiffers,
                "\(label) has a disk of \(snapshot.diskSize) bytes; the active one has \(header.size).")
        }
        if snapshot.date.nanoseconds >= 1_000_000_000 {
            note(.snapshotDateInvalid, "\(label) has a date with \(snapshot.date.nanoseconds) nanoseconds.")
        } else if snapshot.date.seconds == 0 {
            note(.snapshotDateInvalid, "\(label) has no date.")
        }
        if let why = unusual(snapshot.nameBytes) {
            note(.snapshotNameUnusual, "\(label) has a name that \(why): '\(escaped(snapshot.nameBytes.prefix(64)))'.")
        }
        if !snapshot.idBytes.isEmpty, decimal(snapshot.idBytes) == nil {
            note(
                .snapshotIDUnusual,
                "\(label) has an ID that no program gives: '\(escaped(snapshot.idBytes.prefix(64)))'.")
        }
    }
}

/// What is odd about a name that a reading lets pass, if anything.
private func unusual(_ name: [UInt8]) -> String? {
    if name.isEmpty { return "is empty" }
    // What the reading notes itself.
    guard let text = String(validating: name, as: UTF8.self), !name.contains(0) else { return nil }
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
