// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How a state of the disk is written to a file of its own.
public struct ExportOptions: Sendable {
    /// The kind of the new file.
    public enum Format: Hashable, Sendable {
        /// The disk's bytes as they are; zeros become holes.
        case raw
        /// A stand-alone image with clusters of 64 KiB; its clusters compressed, if a type is given.
        case qcow2(compression: CompressionType? = nil)
    }

    /// The kind of the new file.
    public var format = Format.raw
    /// Whether a regular file that is there already may be replaced, once the new one is complete.
    ///
    /// Its owner, group and permissions stay. It is locked as for writing until then: one that another process uses, such
    /// as a virtual machine, is never replaced.
    public var replacesExisting = false
    /// Whether a file is left alone that can't be locked.
    public var locks = FileStorage.LockRequirement.forWriting
    /// Files that must not be replaced, besides those that belong to what is being read.
    public var keptFiles: [String] = []
    /// Whether to wait until the new file is on stable storage: its bytes before it has its name, then the name.
    ///
    /// Without it, a power loss soon after may leave an empty or incomplete file under the name.
    public var flushes = true
    /// How many threads read, decompress and compress; by default one for each processor.
    public var threadCount: Int?
    /// Called between batches of work, from the thread that asked for the export.
    ///
    /// When it returns false the export stops with ``QCOW2Error/Code/cancelled``, and leaves no file.
    public var progress: (@Sendable (Progress) -> Bool)?

    /// The defaults: a raw file, under a name that isn't taken.
    public init() {}
}

extension NewFile {
    /// Creates the file that the options ask for.
    convenience init(
        path: String, _ options: ExportOptions, sources: [NamedFile], calls: any FileCalls = KernelCalls()
    ) throws(QCOW2Error) {
        try self.init(
            path: path, replacing: options.replacesExisting ? options.locks : nil,
            sources: sources + options.keptFiles.map { NamedFile(open: $0, nil) }, calls: calls)
    }
}

extension DiskView {
    /// Writes the disk to a new file, which appears under its name when it is complete, with all of its size.
    ///
    /// Never replaces a file that belongs to what is being read, by whatever name: the image, its backing files, also
    /// those that weren't allowed to be opened, external data files. Of the latter only the identity is looked at.
    ///
    /// Blocks of 4 KiB that hold nothing but zeros are never written, whether the image knows that they are zeros or
    /// not. Until the end the file has another name in the same directory; an error removes it, and so does nobody
    /// after a crash.
    ///
    /// - Parameters:
    ///   - path: Where the file will be; its directory must be there.
    ///   - options: The file's format, and whether it may replace another.
    /// - Throws: What ``read(into:at:)`` throws; `fileExists` when the name is taken, or is that of a file that belongs
    ///   to what is being read; `inUse` or `locksUnavailable` when the file to be replaced can't be locked; `cancelled`.
    public func export(to path: String, options: ExportOptions = ExportOptions()) throws(QCOW2Error) {
        let file = try NewFile(path: path, options, sources: files)
        var byteCount = virtualSize
        switch options.format {
        case .raw: try exportRaw(to: file, options)
        case .qcow2(let compression): byteCount = try exportImage(to: file, compression, options)
        }
        try file.commit(byteCount: byteCount, flushes: options.flushes)
    }

    private func exportRaw(to file: NewFile, _ options: ExportOptions) throws(QCOW2Error) {
        try file.setByteCount(virtualSize)
        let threadCount = options.threadCount ?? Threads.processorCount
        let buffers = (0..<(2 * max(1, threadCount))).map { _ in ChunkBuffer(byteCount: 1 << 20) }
        var meter = WorkMeter(options.progress)
        meter.expect(virtualSize)
        try ChunkPipeline(ChunkSource(self), buffers).run(threadCount: threadCount) {
            (chunk, buffer) throws(QCOW2Error) in
            try buffer.fillParts(chunk, from: self)
        } finish: { (chunk, buffer) throws(QCOW2Error) in
            // By one thread: writers of one file only wait for each other.
            try buffer.withParts(of: chunk) { (bytes, start) throws(QCOW2Error) in
                try file.write(bytes, at: chunk.start + UInt64(start))
            }
            try meter.advance(by: chunk.byteCount)
        }
    }

    /// Writes the snapshot's VM state, a stream in the format of QEMU's migration, to a new file as it is.
    ///
    /// - Throws: What ``readVMState(into:at:)`` throws; `unsupported` when there is none; and for the file, what
    ///   ``export(to:options:)`` throws.
    public func exportVMState(to path: String, options: ExportOptions = ExportOptions()) throws(QCOW2Error) {
        guard vmStateSize > 0 else {
            throw QCOW2Error(.unsupported, "This state of the disk has no VM state: no machine was running.")
        }
        let file = try NewFile(path: path, options, sources: files)
        try file.setByteCount(vmStateSize)
        var meter = WorkMeter(options.progress)
        meter.expect(vmStateSize)
        var buffer = [UInt8](repeating: 0, count: Int(min(vmStateSize, 1 << 20)))
        var position: UInt64 = 0
        while position < vmStateSize {
            let count = Int(min(vmStateSize - position, UInt64(buffer.count)))
            try buffer.withMutableSpan(of: 0..<count) { (part) throws(QCOW2Error) in
                try readVMState(into: &part, at: position)
            }
            let bytes = buffer.span.extracting(..<count)
            try bytes.forEachNonZeroPart { (part) throws(QCOW2Error) in
                try file.write(bytes.extracting(part), at: position + UInt64(part.lowerBound))
            }
            position += UInt64(count)
            try meter.advance(by: UInt64(count))
        }
        try file.commit(byteCount: vmStateSize, flushes: options.flushes)
    }
}
