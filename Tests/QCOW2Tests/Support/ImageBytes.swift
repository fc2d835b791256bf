// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The bytes of an image, to be written and patched number by number.
///
/// Shares no code with the library, so that a mistake there can't hide here.
struct ImageBytes: Hashable, Sendable {
    var bytes: [UInt8] = []

    /// Writes a big-endian number; the file grows if it must.
    mutating func set(_ value: UInt64, _ byteCount: Int = 8, at offset: Int) {
        set((0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64((byteCount - 1 - $0) * 8)) }, at: offset)
    }

    mutating func set(_ data: [UInt8], at offset: Int) {
        grow(to: offset + data.count)
        bytes.replaceSubrange(offset..<(offset + data.count), with: data)
    }

    mutating func grow(to byteCount: Int) {
        bytes.append(contentsOf: repeatElement(0, count: max(0, byteCount - bytes.count)))
    }

    /// A big-endian number; bytes past the end are zeros.
    func number(_ byteCount: Int = 8, at offset: Int) -> UInt64 {
        (offset..<(offset + byteCount)).reduce(0) { $0 << 8 | UInt64($1 < bytes.count ? bytes[$1] : 0) }
    }

    /// Writes header extension records, and END behind them.
    mutating func setExtensions(_ records: [(type: UInt32, data: [UInt8])], at start: Int) {
        var position = start
        for record in records {
            set(UInt64(record.type), 4, at: position)
            set(UInt64(record.data.count), 4, at: position + 4)
            set(record.data, at: position + 8)
            position += 8 + (record.data.count + 7) / 8 * 8
        }
        set(0, at: position)
    }
}

/// A snapshot table entry, field by field.
struct RawSnapshot: Sendable {
    var l1TableOffset = 0
    var l1EntryCount = 0
    var id = Array("1".utf8)
    var name = Array("s1".utf8)
    var seconds: UInt64 = 1
    var nanoseconds: UInt64 = 2
    var vmClock: UInt64 = 3
    var vmStateSize: UInt64 = 0
    /// VM state size, disk size, icount, and what nobody knows.
    var extra: [UInt8] = RawSnapshot.extra(0, 8192, .max)

    static func extra(_ numbers: UInt64...) -> [UInt8] {
        var image = ImageBytes()
        for number in numbers { image.set(number, at: image.bytes.count) }
        return image.bytes
    }

    /// The entry without padding.
    var encoded: [UInt8] {
        var image = ImageBytes()
        image.set(UInt64(l1TableOffset), at: 0)
        image.set(UInt64(l1EntryCount), 4, at: 8)
        image.set(UInt64(id.count), 2, at: 12)
        image.set(UInt64(name.count), 2, at: 14)
        image.set(seconds, 4, at: 16)
        image.set(nanoseconds, 4, at: 20)
        image.set(vmClock, at: 24)
        image.set(vmStateSize, 4, at: 32)
        image.set(UInt64(extra.count), 4, at: 36)
        return image.bytes + extra + id + name
    }

    static func table(_ entries: [RawSnapshot]) -> [UInt8] {
        var table: [UInt8] = []
        for entry in entries {
            table.append(contentsOf: repeatElement(0, count: -table.count & 7))
            table.append(contentsOf: entry.encoded)
        }
        return table
    }
}
