// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// One entry of the snapshot table.
///
/// Section "4.1 Entry".
struct SnapshotTableEntry: Hashable, Sendable {
    /// The most extra data that other implementations read.
    static let maximumExtraByteCount: UInt32 = 1024
    /// The largest snapshot table in bytes.
    static let maximumTableByteCount: UInt64 = 64 << 20
    /// The most bytes that an entry can have.
    static let maximumByteCount = Layout.fixedByteCount + Int(maximumExtraByteCount) + 2 * Int(UInt16.max) + 7
    /// The extra data that this library always writes: VM state size, disk size, icount.
    static let knownExtraByteCount = 24

    var l1TableOffset: HostOffset
    var l1EntryCount: UInt32
    /// The ID's bytes; any are legal.
    var id: [UInt8]
    /// The name's bytes; any are legal.
    var name: [UInt8]
    /// Seconds since 1970, UTC.
    var seconds: UInt32
    var nanoseconds: UInt32
    /// How long the guest had run, in nanoseconds.
    var vmClock: UInt64
    /// Bytes of VM state stored behind the disk.
    var vmStateSize: UInt64
    /// Bytes of the disk when the snapshot was made; `nil` in old entries.
    var diskSize: UInt64?
    /// How many instructions the guest had executed; `nil` when that wasn't recorded.
    var icount: UInt64?
    /// Extra data behind the fields that this library knows.
    var unknownExtraData: [UInt8]

    enum Layout {
        static let l1TableOffset = Field<UInt64>("l1_table_offset", at: 0)
        static let l1Size = Field<UInt32>("l1_size", at: 8)
        static let idLength = Field<UInt16>("id_str_size", at: 12)
        static let nameLength = Field<UInt16>("name_size", at: 14)
        static let dateSeconds = Field<UInt32>("date_sec", at: 16)
        static let dateNanoseconds = Field<UInt32>("date_nsec", at: 20)
        static let vmClock = Field<UInt64>("vm_clock_nsec", at: 24)
        static let vmStateSize = Field<UInt32>("vm_state_size", at: 32)
        static let extraDataSize = Field<UInt32>("extra_data_size", at: 36)
        static let fixedByteCount = 40
        static let largeVMStateSize = Field<UInt64>("vm_state_size_large", at: 40)
        static let diskSize = Field<UInt64>("disk_size", at: 48)
        static let icount = Field<UInt64>("icount", at: 56)

        static let fixedFields: [FieldDescription] = [
            l1TableOffset.description, l1Size.description, idLength.description, nameLength.description,
            dateSeconds.description, dateNanoseconds.description, vmClock.description, vmStateSize.description,
            extraDataSize.description,
        ]
        static let extraFields: [FieldDescription] = [
            largeVMStateSize.description, diskSize.description, icount.description,
        ]
    }

    /// Decodes the entry at the start of `bytes`.
    ///
    /// - Parameters:
    ///   - bytes: The rest of the table; the file's bytes from the entry on.
    ///   - base: Where `bytes` start in the file, for errors.
    ///   - geometry: The image's sizes.
    /// - Throws: ``QCOW2Error/Code/corrupt`` for an entry that doesn't fit into `bytes` or exceeds a limit.
    init(decoding bytes: Span<UInt8>, at base: HostOffset, in geometry: ImageGeometry) throws(QCOW2Error) {
        try self.init(decodingFields: bytes, at: base)
        try checkL1Table(at: base, in: geometry)
    }

    /// Decodes the entry at the start of `bytes`, wherever its L1 table is said to be.
    init(decodingFields bytes: Span<UInt8>, at base: HostOffset) throws(QCOW2Error) {
        func place<T>(_ field: Field<T>) -> HostOffset { base.saturating(adding: UInt64(field.offset)) }
        guard bytes.count >= Layout.fixedByteCount else {
            throw .truncated("snapshot table entry", needed: Layout.fixedByteCount, have: bytes.count, at: base)
        }
        let extraByteCount = Layout.extraDataSize.load(from: bytes)
        guard extraByteCount <= Self.maximumExtraByteCount else {
            throw .outOfRange(
                Layout.extraDataSize.name, extraByteCount, 0...Self.maximumExtraByteCount,
                at: place(Layout.extraDataSize))
        }
        let idStart = Layout.fixedByteCount + Int(extraByteCount)
        let nameStart = idStart + Int(Layout.idLength.load(from: bytes))
        let end = nameStart + Int(Layout.nameLength.load(from: bytes))
        guard bytes.count >= end else {
            throw .truncated("snapshot table entry", needed: end, have: bytes.count, at: base)
        }
        l1TableOffset = HostOffset(Layout.l1TableOffset.load(from: bytes))
        l1EntryCount = Layout.l1Size.load(from: bytes)
        seconds = Layout.dateSeconds.load(from: bytes)
        nanoseconds = Layout.dateNanoseconds.load(from: bytes)
        vmClock = Layout.vmClock.load(from: bytes)
        vmStateSize =
            idStart >= Layout.largeVMStateSize.end
            ? Layout.largeVMStateSize.load(from: bytes) : UInt64(Layout.vmStateSize.load(from: bytes))
        diskSize = idStart >= Layout.diskSize.end ? Layout.diskSize.load(from: bytes) : nil
        let rawICount = idStart >= Layout.icount.end ? Layout.icount.load(from: bytes) : .max
        icount = rawICount == .max ? nil : rawICount
        unknownExtraData = idStart > Layout.icount.end ? Array(copying: bytes, Layout.icount.end..<idStart) : []
        id = Array(copying: bytes, idStart..<nameStart)
        name = Array(copying: bytes, nameStart..<end)
    }

    /// Checks what the entry at `base` says about its L1 table, whatever the file's length.
    func checkL1Table(at base: HostOffset, in geometry: ImageGeometry) throws(QCOW2Error) {
        func place<T>(_ field: Field<T>) -> HostOffset { base.saturating(adding: UInt64(field.offset)) }
        guard UInt64(l1EntryCount) <= ImageGeometry.maximumL1EntryCount else {
            throw .outOfRange(
                Layout.l1Size.name, UInt64(l1EntryCount), 0...ImageGeometry.maximumL1EntryCount,
                at: place(Layout.l1Size))
        }
        guard geometry.isAligned(l1TableOffset) else {
            throw .misaligned(Layout.l1TableOffset.name, l1TableOffset, at: place(Layout.l1TableOffset))
        }
        if l1EntryCount > 0, l1TableOffset.rawValue == 0 {
            throw .invalid(
                Layout.l1TableOffset.name, "the table would lie in the header's cluster",
                at: place(Layout.l1TableOffset))
        }
    }

    /// Checks that the L1 table is long enough for the disk of the snapshot.
    ///
    /// Invariant I-10. Whoever writes a snapshot copies a table that maps the whole disk, so what a shorter one lacks
    /// was there once. An entry that doesn't say how large the disk was means the image's size.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt``.
    func checkL1EntryCount(in header: Header) throws(QCOW2Error) {
        let diskSize = diskSize ?? header.size
        guard header.geometry.l1EntryCount(forDiskSize: diskSize) > UInt64(l1EntryCount) else { return }
        throw QCOW2Error(
            .corrupt,
            "The disk of snapshot '\(escaped(id))', \(diskSize) bytes, needs more than the \(l1EntryCount) entries that "
                + "its L1 table has.", at: l1TableOffset)
    }

    /// A new entry; the committer fills in where its L1 table goes.
    init(id: [UInt8], name: [UInt8], seconds: UInt32, nanoseconds: UInt32, diskSize: UInt64) {
        l1TableOffset = HostOffset(0)
        l1EntryCount = 0
        self.id = id
        self.name = name
        self.seconds = seconds
        self.nanoseconds = nanoseconds
        self.diskSize = diskSize
        vmClock = 0
        vmStateSize = 0
        icount = nil
        unknownExtraData = []
    }

    /// Bytes of the entry as this library writes it, without padding.
    var encodedByteCount: Int {
        Layout.fixedByteCount + Self.knownExtraByteCount + unknownExtraData.count + id.count + name.count
    }

    /// Appends the entry as this library writes it, without padding: always with disk size and icount.
    func encode(to table: inout [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: Layout.icount.end)
        var fixed = bytes.mutableSpan
        Layout.l1TableOffset.store(l1TableOffset.rawValue, in: &fixed)
        Layout.l1Size.store(l1EntryCount, in: &fixed)
        // Safe: decoding takes both lengths from 16-bit fields, and new IDs and names are at most 255 bytes.
        Layout.idLength.store(UInt16(id.count), in: &fixed)
        Layout.nameLength.store(UInt16(name.count), in: &fixed)
        Layout.dateSeconds.store(seconds, in: &fixed)
        Layout.dateNanoseconds.store(nanoseconds, in: &fixed)
        Layout.vmClock.store(vmClock, in: &fixed)
        // A size that doesn't fit is written as "none", so that old readers never see a truncated one.
        Layout.vmStateSize.store(UInt32(exactly: vmStateSize) ?? 0, in: &fixed)
        Layout.extraDataSize.store(UInt32(Self.knownExtraByteCount + unknownExtraData.count), in: &fixed)
        Layout.largeVMStateSize.store(vmStateSize, in: &fixed)
        Layout.diskSize.store(diskSize ?? 0, in: &fixed)
        Layout.icount.store(icount ?? .max, in: &fixed)
        table.append(contentsOf: bytes)
        table.append(contentsOf: unknownExtraData)
        table.append(contentsOf: id)
        table.append(contentsOf: name)
    }

    /// The fields of the entry at the start of `bytes` as they are, whether valid or not.
    static func annotatedFields(in bytes: Span<UInt8>, at base: HostOffset) -> [AnnotatedField] {
        guard bytes.count >= Layout.fixedByteCount else {
            return AnnotatedField.annotate(Layout.fixedFields, in: bytes, at: base)
        }
        let extraEnd = Layout.fixedByteCount + Int(Layout.extraDataSize.load(from: bytes))
        let idEnd = extraEnd + Int(Layout.idLength.load(from: bytes))
        var fields = Layout.fixedFields + Layout.extraFields.filter { $0.offset + $0.byteCount <= extraEnd }
        fields.append(FieldDescription(name: "id", offset: extraEnd, byteCount: idEnd - extraEnd))
        fields.append(
            FieldDescription(name: "name", offset: idEnd, byteCount: Int(Layout.nameLength.load(from: bytes))))
        return AnnotatedField.annotate(fields, in: bytes, at: base)
    }
}

extension [UInt8] {
    /// Copies a range of a span.
    init(copying bytes: Span<UInt8>, _ range: Range<Int>) {
        self = []
        reserveCapacity(range.count)
        for index in range { append(bytes[index]) }
    }
}
