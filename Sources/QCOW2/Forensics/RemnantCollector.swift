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

        init(_ snapshot: Snapshot, _ l1TableOffset: HostOffset = HostOffset(0)) {
            id = snapshot.idBytes
            name = snapshot.nameBytes
            date = snapshot.date
            self.l1TableOffset = l1TableOffset
        }
    }

    /// Those of snapshots that the image doesn't have.
    private(set) var found: [Inspection.SnapshotRemnant] = []
    private var indices: [Key: Int] = [:]
    private(set) var isFull = false
    /// The snapshots that the image has, wherever their L1 tables are now.
    var present: Set<Key> = []
    /// How often those were found, and where first.
    private(set) var presentCopyCount = 0
    private(set) var firstPresentCopy: HostOffset?
    /// Where images inside the file begin, in the order in which they were found.
    private(set) var nestedImages: [NestedImage] = []
    private static let nestedImageLimit = 4096
    /// Where the entry that was found last ends, the ones in front of it in the same table, and whether a present one
    /// is among these.
    private var chain: (end: UInt64, members: [Int], hasPresent: Bool) = (0, [], false)

    mutating func add(_ entry: SnapshotTableEntry, at offset: HostOffset, byteCount: Int, place: Inspection.Place) {
        if offset.rawValue != chain.end { chain = (0, [], false) }
        chain.end = offset.rawValue + UInt64((byteCount + 7) / 8 * 8)
        let snapshot = Snapshot(entry, imageSize: 0)
        if present.contains(Key(snapshot)) {
            presentCopyCount += 1
            firstPresentCopy = firstPresentCopy ?? offset
            chain.hasPresent = true
            for member in chain.members { found[member].isBesidePresent = true }
            return
        }
        let key = Key(snapshot, entry.l1TableOffset)
        if let index = indices[key] {
            found[index].copyCount += 1
            chain.members.append(index)
        } else if found.count < Self.limit {
            indices[key] = found.count
            chain.members.append(found.count)
            let nested = nestedImages.last { $0.hasSnapshotTable(around: offset) }
            found.append(
                Inspection.SnapshotRemnant(
                    offset: offset, place: place, snapshot: snapshot, l1TableOffset: entry.l1TableOffset,
                    l1EntryCount: entry.l1EntryCount, copyCount: 1, nestedImageOffset: nested?.offset))
        } else {
            isFull = true
            return
        }
        if chain.hasPresent, let last = chain.members.last { found[last].isBesidePresent = true }
    }

    /// Finds entries of snapshot tables, and headers of images, in bytes from anywhere.
    ///
    /// Looks for starts in the first `count` bytes; an entry may reach into what follows. An L1 table is where a sector
    /// starts: a nested image has clusters of its own size.
    mutating func collect(
        in bytes: [UInt8], from base: HostOffset, place: Inspection.Place, startingIn count: Int? = nil
    ) {
        let fixed = SnapshotTableEntry.Layout.fixedByteCount
        let end = min(count ?? bytes.count, bytes.count - fixed + 1)
        var position = Int((8 - base.rawValue % 8) % 8)
        while position < end {
            let offset = base.saturating(adding: UInt64(position))
            if offset.rawValue % ImageGeometry.sectorSize == 0, offset.rawValue > 0,
                nestedImages.count < Self.nestedImageLimit,
                let image = NestedImage(bytes.span.extracting(position..<bytes.count), at: offset)
            {
                nestedImages.append(image)
            }
            guard SnapshotTableEntry.isPlausible(bytes.span, at: position, alignment: ImageGeometry.sectorSize) else {
                position += 8
                continue
            }
            let rest = bytes.span.extracting(position..<bytes.count)
            guard let entry = try? SnapshotTableEntry(decodingFields: rest, at: offset), entry.isPlausible else {
                position += 8
                continue
            }
            let extraByteCount = Int(SnapshotTableEntry.Layout.extraDataSize.load(from: rest))
            let byteCount = fixed + extraByteCount + entry.id.count + entry.name.count
            add(entry, at: offset, byteCount: byteCount, place: place)
            position += (byteCount + 7) / 8 * 8
        }
    }
}

/// The header of an image that lies inside another file, such as on the disk of that file's guest.
struct NestedImage: Hashable, Sendable {
    let offset: HostOffset
    private let snapshotTableOffset: UInt64

    /// The header at the start of `bytes`; `nil` if there is none.
    init?(_ bytes: Span<UInt8>, at offset: HostOffset) {
        guard bytes.count >= Header.Layout.version2ByteCount, Header.Layout.magic.load(from: bytes) == Header.magic,
            (2...3).contains(Header.Layout.version.load(from: bytes)),
            ImageGeometry.clusterBitsRange.contains(Header.Layout.clusterBits.load(from: bytes))
        else { return nil }
        self.offset = offset
        snapshotTableOffset =
            Header.Layout.snapshotCount.load(from: bytes) > 0 ? Header.Layout.snapshotsOffset.load(from: bytes) : 0
    }

    /// Whether its snapshot table is where an entry was found, as far as the image lies there in one piece.
    func hasSnapshotTable(around place: HostOffset) -> Bool {
        guard snapshotTableOffset > 0, place > offset else { return false }
        let distance = place.rawValue - offset.rawValue
        return distance >= snapshotTableOffset
            && distance - snapshotTableOffset < SnapshotTableEntry.maximumTableByteCount
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
