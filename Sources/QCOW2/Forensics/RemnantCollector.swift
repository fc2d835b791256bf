// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Collects what looks like entries of snapshot tables, of which copies are many: each new table repeats all.
struct RemnantCollector: Sendable {
    /// How many different ones are kept.
    static let limit = 10_000

    /// What makes two entries copies of one.
    struct Key: Hashable {
        let id: [UInt8]
        let name: [UInt8]
        let date: SnapshotDate
        let l1TableOffset: HostOffset

        init(_ snapshot: Snapshot, _ l1TableOffset: HostOffset) {
            id = snapshot.idBytes
            name = snapshot.nameBytes
            date = snapshot.date
            self.l1TableOffset = l1TableOffset
        }
    }

    private(set) var found: [Inspection.SnapshotRemnant] = []
    private var indices: [Key: Int] = [:]
    private(set) var isFull = false

    mutating func add(_ entry: SnapshotTableEntry, at offset: HostOffset, place: Inspection.Place) {
        let snapshot = Snapshot(entry, imageSize: 0)
        let key = Key(snapshot, entry.l1TableOffset)
        if let index = indices[key] {
            found[index].copyCount += 1
        } else if found.count < Self.limit {
            indices[key] = found.count
            found.append(
                Inspection.SnapshotRemnant(
                    offset: offset, place: place, snapshot: snapshot, l1TableOffset: entry.l1TableOffset,
                    l1EntryCount: entry.l1EntryCount, l1State: .lost, copyCount: 1))
        } else {
            isFull = true
        }
    }
}

extension SnapshotTableEntry {
    /// Whether the bytes at a place begin like an entry that a program wrote.
    ///
    /// Cheap, as it is asked of every eighth byte.
    static func isPlausible(_ bytes: Span<UInt8>, at position: Int, alignment: UInt64) -> Bool {
        let idByteCount: UInt16 = bytes.loadBigEndian(at: position + Layout.idLength.offset)
        guard (1...20).contains(idByteCount) else { return false }
        let nanoseconds: UInt32 = bytes.loadBigEndian(at: position + Layout.dateNanoseconds.offset)
        let extraByteCount: UInt32 = bytes.loadBigEndian(at: position + Layout.extraDataSize.offset)
        let l1EntryCount: UInt32 = bytes.loadBigEndian(at: position + Layout.l1Size.offset)
        let l1Table: UInt64 = bytes.loadBigEndian(at: position + Layout.l1TableOffset.offset)
        return nanoseconds < 1_000_000_000 && extraByteCount <= maximumExtraByteCount && extraByteCount % 8 == 0
            && l1EntryCount <= UInt32(ImageGeometry.maximumL1EntryCount)
            && l1Table < ImageGeometry.hostOffsetLimit && l1Table % alignment == 0
            && (l1Table == 0) == (l1EntryCount == 0)
    }

    /// Whether everything else in the entry is what a program would write.
    ///
    /// An ID is a number. The format is of 2006, and so is the oldest date; whose clock was wrong goes unfound.
    var isPlausible: Bool {
        guard decimal(id) != nil, seconds >= 1_136_073_600, name.count <= 1023 else { return false }
        guard let text = String(validating: name, as: UTF8.self),
            !text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
        else { return false }
        guard let diskSize else { return true }
        return diskSize % ImageGeometry.sectorSize == 0 && diskSize < 1 << 63 && (l1EntryCount > 0 || diskSize == 0)
    }
}

extension RemnantCollector {
    /// Finds entries of snapshot tables in bytes from anywhere.
    ///
    /// Looks for starts in the first `count` bytes; an entry may reach into what follows.
    mutating func collect(
        in bytes: [UInt8], from base: HostOffset, place: Inspection.Place, alignment: UInt64,
        startingIn count: Int? = nil
    ) {
        let fixed = SnapshotTableEntry.Layout.fixedByteCount
        let end = min(count ?? bytes.count, bytes.count - fixed + 1)
        var position = Int((8 - base.rawValue % 8) % 8)
        while position < end {
            guard SnapshotTableEntry.isPlausible(bytes.span, at: position, alignment: alignment) else {
                position += 8
                continue
            }
            let offset = base.saturating(adding: UInt64(position))
            let rest = bytes.span.extracting(position..<bytes.count)
            guard let entry = try? SnapshotTableEntry(decodingFields: rest, at: offset), entry.isPlausible else {
                position += 8
                continue
            }
            add(entry, at: offset, place: place)
            let extraByteCount = Int(SnapshotTableEntry.Layout.extraDataSize.load(from: rest))
            position += (fixed + extraByteCount + entry.id.count + entry.name.count + 7) / 8 * 8
        }
    }
}
