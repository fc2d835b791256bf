// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension ImageReader where S: ~Copyable {
    /// Writes what changed between two states to a new file, as
    /// ``exportRBDDiff(from:to:isExact:progress:_:)`` does, which appears under its name when it is complete.
    ///
    /// - Parameters:
    ///   - path: Where the file will be; its directory must be there.
    ///   - old: The earlier state; without one, the stream holds all of the later state.
    ///   - new: The later state.
    ///   - isExact: Whether to leave out ranges whose data didn't change.
    ///   - options: Whether the file may replace another, and progress; its format counts for nothing.
    /// - Returns: Sizes and sums of the changes.
    /// - Throws: What ``exactDiff(from:to:progress:_:)`` throws; `fileExists` when the name is taken, or is that of a
    ///   file that belongs to what is being read.
    @discardableResult
    public func exportRBDDiff(
        toFile path: String, from old: DiskState?, to new: DiskState = .active, isExact: Bool = false,
        options: ExportOptions = ExportOptions()
    ) throws(QCOW2Error) -> DiskDifference {
        let file = try NewFile(path: path, options, sources: view(of: new).files)
        var byteCount: UInt64 = 0
        let difference = try exportRBDDiff(from: old, to: new, isExact: isExact, progress: options.progress) {
            (bytes) throws(QCOW2Error) in
            try file.write(bytes, at: byteCount)
            byteCount += UInt64(bytes.count)
        }
        try file.commit(byteCount: byteCount, flushes: options.flushes)
        return difference
    }
}
