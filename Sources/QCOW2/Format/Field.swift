// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A big-endian integer at a fixed byte offset of an on-disk structure.
///
/// One value of this type per field serves decoding, encoding and the annotated dump, so the three can't disagree.
struct Field<Value: FixedWidthInteger & BitwiseCopyable & Sendable>: Sendable {
    /// The field's name in the specification.
    let name: String
    /// Bytes from the start of the structure.
    let offset: Int

    init(_ name: String, at offset: Int) {
        self.name = name
        self.offset = offset
    }

    /// The first byte after the field.
    var end: Int { offset + MemoryLayout<Value>.size }

    /// Reads the field, or traps outside `bytes`: check the length of untrusted bytes first.
    func load(from bytes: Span<UInt8>) -> Value { bytes.loadBigEndian(at: offset) }

    func store(_ value: Value, in bytes: inout MutableSpan<UInt8>) { bytes.storeBigEndian(value, at: offset) }

    /// The field without its type, for lists of fields.
    var description: FieldDescription {
        FieldDescription(name: name, offset: offset, byteCount: MemoryLayout<Value>.size)
    }
}

extension Span<UInt8> {
    /// Reads a big-endian integer at any byte offset, or traps outside the span.
    func loadBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as type: Value.Type = Value.self)
        -> Value
    {
        // SAFETY: the load checks its bounds, and every bit pattern is a valid integer.
        unsafe Value(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}

extension MutableSpan<UInt8> {
    /// Writes a big-endian integer at any byte offset, or traps outside the span.
    mutating func storeBigEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        // SAFETY: a byte has no padding; the store checks its bounds.
        var target = unsafe mutableBytes
        target.storeBytes(of: value.bigEndian, toByteOffset: offset, as: Value.self)
    }
}

extension [UInt8] {
    /// Lets `body` change a part of the array, as if it were whole.
    mutating func withMutableSpan(
        of range: Range<Int>, _ body: (inout MutableSpan<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var whole = mutableSpan
        // The name with the underscore is the one that Swift 6.3 doesn't warn about.
        var part = whole._mutatingExtracting(range)
        try body(&part)
    }
}

/// A field's name and place, without its type.
struct FieldDescription: Hashable, Sendable {
    let name: String
    let offset: Int
    let byteCount: Int
}

/// One field of an on-disk structure as it is found in a file: where, which bytes, and what they say.
public struct AnnotatedField: Hashable, Sendable {
    /// The field's name in the specification.
    public let name: String
    /// Where the field starts in the file.
    public let offset: HostOffset
    /// The field's bytes, as they are.
    public let bytes: [UInt8]

    /// The big-endian number in a field of at most eight bytes; `nil` for longer ones.
    public var value: UInt64? {
        guard bytes.count <= 8 else { return nil }
        return bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }
}

extension AnnotatedField {
    /// Annotates those of `fields` that lie whole inside `bytes`, a structure that starts at `base`.
    static func annotate(_ fields: [FieldDescription], in bytes: Span<UInt8>, at base: HostOffset) -> [AnnotatedField] {
        var result: [AnnotatedField] = []
        for field in fields where field.offset + field.byteCount <= bytes.count {
            var raw: [UInt8] = []
            for index in field.offset..<(field.offset + field.byteCount) { raw.append(bytes[index]) }
            let (offset, overflow) = base.rawValue.addingReportingOverflow(UInt64(field.offset))
            guard !overflow else { break }
            result.append(AnnotatedField(name: field.name, offset: HostOffset(offset), bytes: raw))
        }
        return result
    }
}
