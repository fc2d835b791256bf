// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Foundation
public import QCOW2

/// Judges what a comparison of two states says, by the bytes of both.
public struct DiffModel {
    /// The bytes of the earlier disk; `nil` for a disk of zeros as large as the later one.
    public let old: [UInt8]?
    /// The bytes of the later disk.
    public let new: [UInt8]

    /// A judge for two disks.
    public init(from old: [UInt8]?, to new: [UInt8]) {
        self.old = old
        self.new = new
    }

    private var common: Int { min(old?.count ?? new.count, new.count) }

    /// What is wrong with extents, in sentences.
    ///
    /// - Parameters:
    ///   - extents: What was said.
    ///   - isExact: Whether extents must be exactly the sectors that differ, and not only contain them.
    /// - Returns: Sentences; empty when all is right.
    public func defects(of extents: [ChangedExtent], isExact: Bool) -> [String] {
        var defects: [String] = []
        var sectors = [Bool](repeating: false, count: (max(old?.count ?? 0, new.count) + 511) / 512)
        var last: ChangedExtent?
        for extent in extents {
            if let last {
                if extent.start < last.end { defects.append("\(extent) overlaps \(last)") }
                if extent.start == last.end, extent.kind == last.kind { defects.append("\(extent) isn't joined") }
            }
            last = extent
            let (start, end) = (Int(extent.start.rawValue), Int(extent.end.rawValue))
            if extent.byteCount == 0 || end > max(old?.count ?? 0, new.count) {
                defects.append("\(extent) is empty or too long")
                continue
            }
            if (extent.kind == .gone) != (start >= new.count) { defects.append("\(extent) is of the wrong kind") }
            if extent.kind == .zero, new[start..<end].contains(where: { $0 != 0 }) {
                defects.append("\(extent) isn't zeros")
            }
            for sector in (start / 512)..<((end + 511) / 512) { sectors[sector] = true }
        }
        for sector in sectors.indices {
            let (start, end) = (sector * 512, min(sector * 512 + 512, common))
            let isCommon = start < common
            let differs = !isCommon || differs(start..<end)
            if differs, !sectors[sector] { defects.append("sector \(sector) differs and isn't said to") }
            // A sector that only a part of is on both disks is on one of them alone, too.
            let isWhole = isCommon && end == sector * 512 + 512
            if isExact, isWhole, !differs, sectors[sector] { defects.append("sector \(sector) doesn't differ") }
        }
        return defects
    }

    private func differs(_ range: Range<Int>) -> Bool {
        guard let old else { return new[range].contains { $0 != 0 } }
        // SAFETY: the range is inside both disks.
        return unsafe old.withUnsafeBytes { old in
            unsafe new.withUnsafeBytes { new in
                guard let left = old.baseAddress, let right = new.baseAddress else { return false }
                return unsafe memcmp(left + range.lowerBound, right + range.lowerBound, range.count) != 0
            }
        }
    }
}

/// Applies a stream of `rbd export-diff`, version 1, as `rbd import-diff` does; written from the format's description.
public struct RBDDiffReader {
    /// A stream that breaks the format.
    public struct Malformed: Error {
        /// Where.
        public let position: Int
    }

    /// The snapshot that the stream builds on.
    public private(set) var from: String?
    /// The snapshot that it leads to.
    public private(set) var to: String?
    /// The disk afterwards.
    public private(set) var disk: [UInt8]
    /// The longest record of data.
    public private(set) var longestData = 0
    private let stream: [UInt8]
    private var position = 0

    /// Applies a stream to a disk; an image that is new to the cluster has no bytes.
    public init(_ stream: [UInt8], appliedTo disk: [UInt8]) throws {
        self.stream = stream
        self.disk = disk
        let banner = Array("rbd diff v1\n".utf8)
        guard stream.starts(with: banner) else { throw Malformed(position: 0) }
        position = banner.count
        var last = 0
        while true {
            switch try take(1)[0] {
            case UInt8(ascii: "f"): from = String(decoding: try take(Int(number(4))), as: UTF8.self)
            case UInt8(ascii: "t"): to = String(decoding: try take(Int(number(4))), as: UTF8.self)
            case UInt8(ascii: "s"):
                let size = Int(try number(8))
                self.disk = Array(self.disk.prefix(size))
                self.disk += [UInt8](repeating: 0, count: size - self.disk.count)
            case UInt8(ascii: "w"):
                let range = try range(after: &last)
                self.disk.replaceSubrange(range, with: try take(range.count))
                longestData = max(longestData, range.count)
            case UInt8(ascii: "z"):
                let range = try range(after: &last)
                self.disk.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
            case UInt8(ascii: "e"):
                guard position == stream.count else { throw Malformed(position: position) }
                return
            default: throw Malformed(position: position - 1)
            }
        }
    }

    private mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
        guard count <= stream.count - position else { throw Malformed(position: position) }
        defer { position += count }
        let slice = stream[position..<(position + count)]
        return ArraySlice(Array(slice))
    }

    private mutating func number(_ byteCount: Int) throws -> UInt64 {
        try take(byteCount).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// A range of the disk, which must follow all earlier ones.
    private mutating func range(after last: inout Int) throws -> Range<Int> {
        let (offset, length) = (Int(try number(8)), Int(try number(8)))
        guard offset >= last, length > 0, offset + length <= disk.count else { throw Malformed(position: position) }
        last = offset + length
        return offset..<last
    }
}

/// Compares two states in every way that the library has, and says what is wrong.
///
/// - Parameters:
///   - reader: The image.
///   - old: The earlier state and its bytes; `nil` for a disk of zeros.
///   - new: The later state and its bytes.
/// - Returns: Sentences; empty when all is right.
/// - Throws: What the library throws, or ``RBDDiffReader/Malformed``.
public func diffDefects<S: Storage & Sendable & ~Copyable>(
    of reader: ImageReader<S>, from old: (state: DiskState, bytes: [UInt8])?, to new: (state: DiskState, bytes: [UInt8])
) throws -> [String] {
    let model = DiffModel(from: old?.bytes, to: new.bytes)
    var defects: [String] = []
    var extents: [ChangedExtent] = []
    let difference = try reader.image.diff(from: old?.state, to: new.state) { extents.append($0) }
    defects += model.defects(of: extents, isExact: false).map { "by metadata: " + $0 }
    if difference.changedByteCount != extents.reduce(0, { $0 + $1.byteCount })
        || difference.extentCount != UInt64(extents.count) || difference.newSize != UInt64(new.bytes.count)
        || difference.oldSize != UInt64(old?.bytes.count ?? 0)
    {
        defects.append("the sums are wrong: \(difference)")
    }
    extents = []
    try reader.exactDiff(from: old?.state, to: new.state) { extents.append($0) }
    defects += model.defects(of: extents, isExact: true).map { "exact: " + $0 }
    for isExact in [false, true] {
        var stream: [UInt8] = []
        try reader.exportRBDDiff(from: old?.state, to: new.state, isExact: isExact) { bytes in
            // SAFETY: the bytes are copied while the span is valid.
            unsafe bytes.withUnsafeBufferPointer { unsafe stream.append(contentsOf: $0) }
        }
        let applied = try RBDDiffReader(stream, appliedTo: old?.bytes ?? [])
        if applied.disk != new.bytes { defects.append("the stream\(isExact ? ", exact," : "") leads elsewhere") }
    }
    return defects
}
