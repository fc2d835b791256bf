// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Writes the records of Ceph's `rbd export-diff` stream, version 1: all numbers are little-endian.
struct RBDDiffWriter {
    /// What wasn't handed on yet.
    private var pending: [UInt8] = []
    private let write: (Span<UInt8>) throws(QCOW2Error) -> Void

    init(_ write: @escaping (Span<UInt8>) throws(QCOW2Error) -> Void) { self.write = write }

    private mutating func append(_ number: UInt64, byteCount: Int = 8) {
        for index in 0..<byteCount { pending.append(UInt8(truncatingIfNeeded: number >> UInt64(8 * index))) }
    }

    /// Hands on what has come together, once it is worth it.
    private mutating func finishRecord() throws(QCOW2Error) {
        if pending.count >= 1 << 18 { try flush() }
    }

    private mutating func flush() throws(QCOW2Error) {
        guard !pending.isEmpty else { return }
        try write(pending.span)
        pending.removeAll(keepingCapacity: true)
    }

    private mutating func add(_ kind: Character, _ name: [UInt8]) {
        pending += Array(String(kind).utf8)
        append(UInt64(name.count), byteCount: 4)
        pending += name
    }

    /// Writes what precedes the changes.
    ///
    /// - Parameters:
    ///   - old: The name of the snapshot that the changes build on, if any.
    ///   - new: The name of the snapshot that they lead to, if any.
    ///   - size: Bytes of the disk afterwards.
    /// - Throws: What the stream's receiver throws.
    mutating func begin(from old: [UInt8]?, to new: [UInt8]?, size: UInt64) throws(QCOW2Error) {
        pending += Array("rbd diff v1\n".utf8)
        if let old { add("f", old) }
        if let new { add("t", new) }
        pending.append(UInt8(ascii: "s"))
        append(size)
        try finishRecord()
    }

    /// Says that a range is zeros.
    mutating func addZeros(_ start: UInt64, _ byteCount: UInt64) throws(QCOW2Error) {
        pending.append(UInt8(ascii: "z"))
        append(start)
        append(byteCount)
        try finishRecord()
    }

    /// Gives a range its data.
    mutating func add(_ data: Span<UInt8>, at start: UInt64) throws(QCOW2Error) {
        pending.append(UInt8(ascii: "w"))
        append(start)
        append(UInt64(data.count))
        guard data.count < 1 << 16 else {
            try flush()
            return try write(data)
        }
        // SAFETY: the bytes are copied while the span is valid.
        unsafe data.withUnsafeBufferPointer { unsafe pending.append(contentsOf: $0) }
        try finishRecord()
    }

    mutating func end() throws(QCOW2Error) {
        pending.append(UInt8(ascii: "e"))
        try flush()
    }
}

extension ImageReader where S: ~Copyable {
    /// Writes what changed between two states in the format of Ceph's `rbd export-diff`, version 1.
    ///
    /// `rbd import-diff` applies such a stream to an image of a Ceph cluster: one that was made with an earlier state,
    /// and has a snapshot of that state's name, then is what the later state is. Memory is bounded: data goes in
    /// records of at most 1 MiB.
    ///
    /// - Parameters:
    ///   - old: The earlier state; without one, the stream holds all of the later state, for a new image.
    ///   - new: The later state. A snapshot's name becomes that of the snapshot to make; the active state has none.
    ///   - isExact: Whether to leave out ranges whose data didn't change, at the cost of reading both states.
    ///   - progress: Called between batches of work; when it returns false the export stops.
    ///   - write: Gets the stream, piece by piece.
    /// - Returns: Sizes and sums of the changes.
    /// - Throws: What ``exactDiff(from:to:progress:_:)`` and `write` throw.
    @discardableResult
    public func exportRBDDiff(
        from old: DiskState?, to new: DiskState = .active, isExact: Bool = false,
        progress: (@Sendable (Progress) -> Bool)? = nil, _ write: (Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) -> DiskDifference {
        let view = try view(of: new)
        let oldSize = try old.map { (state) throws(QCOW2Error) in try image.tree(of: state).virtualSize } ?? 0
        let oldName = try old.flatMap { (state) throws(QCOW2Error) in try name(of: state) }
        let newName = try name(of: new)
        return try withoutActuallyEscaping(write) { (write) throws(QCOW2Error) -> DiskDifference in
            var writer = RBDDiffWriter(write)
            try writer.begin(from: oldName, to: newName, size: view.virtualSize)
            var buffer = [UInt8](repeating: 0, count: 1 << 20)
            let body = { (extent: ChangedExtent) throws(QCOW2Error) -> Void in
                switch extent.kind {
                case .gone: return
                // What is added to a disk is zeros at first.
                case .zero where extent.start.rawValue >= oldSize: return
                case .zero: try writer.addZeros(extent.start.rawValue, extent.byteCount)
                case .data, .backing: try writer.addData(of: extent, view, &buffer)
                }
                let end = Progress(completed: extent.end.rawValue, total: view.virtualSize)
                guard progress.map({ $0(end) }) ?? true else {
                    throw QCOW2Error(.cancelled, "The operation was cancelled; nothing changed.")
                }
            }
            let difference =
                isExact
                ? try exactDiff(from: old, to: new, progress: progress, body)
                : try image.diff(from: old, to: new, progress: progress, body)
            try writer.end()
            return difference
        }
    }

    /// The name by which a stream refers to a state.
    private func name(of state: DiskState) throws(QCOW2Error) -> [UInt8]? {
        guard case .snapshot(let selector) = state else { return nil }
        return image.entries[try image.index(of: selector)].name
    }
}

extension RBDDiffWriter {
    /// Gives an extent the data that it has in a view, in pieces as large as the buffer.
    fileprivate mutating func addData(
        of extent: ChangedExtent, _ view: DiskView, _ buffer: inout [UInt8]
    ) throws(QCOW2Error) {
        var position = extent.start.rawValue
        while position < extent.end.rawValue {
            let count = Int(min(UInt64(buffer.count), extent.end.rawValue - position))
            try buffer.withMutableSpan(of: 0..<count) { (bytes) throws(QCOW2Error) in
                try view.read(into: &bytes, at: GuestOffset(position))
            }
            let bytes = buffer
            try add(bytes.span.extracting(..<count), at: position)
            position &+= UInt64(count)
        }
    }
}
