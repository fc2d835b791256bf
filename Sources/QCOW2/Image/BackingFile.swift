// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an image says about its backing file, which isn't opened to find out.
///
/// Section "1.6 Backing file name".
public struct BackingFile: Hashable, Sendable {
    /// The name's bytes; whoever made the image chose them.
    public let nameBytes: [UInt8]
    /// The format's bytes; `nil` when the image doesn't say, and then nobody may guess.
    public let formatBytes: [UInt8]?

    /// The name as text; bytes that aren't UTF-8 are replaced.
    public var name: String { String(decoding: nameBytes, as: UTF8.self) }
    /// The format as text, such as `raw` or `qcow2`.
    public var format: String? { formatBytes.map { String(decoding: $0, as: UTF8.self) } }
}

extension Image where S: ~Copyable {
    /// What the image says about its backing file; `nil` when it has none.
    ///
    /// Reads the name from the image's first cluster, and opens nothing. An empty name means none, as it does for QEMU.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    public func backingFile() throws(QCOW2Error) -> BackingFile? {
        guard hasBackingFile, header.backingFileNameByteCount > 0 else { return nil }
        // Safe: decoding the header has checked that the name is in the first cluster, and at most 1023 bytes.
        let name = try storage.readBytes(Int(header.backingFileNameByteCount), at: header.backingFileOffset)
        return BackingFile(nameBytes: name, formatBytes: opened.extensions.last(.backingFileFormat)?.data)
    }

    /// The files that the image names: its backing file and its external data file.
    func namedFiles() throws(QCOW2Error) -> [NamedFile] {
        let names = [try backingFile()?.nameBytes, externalDataFileNameBytes]
        return names.flatMap { $0.map { NamedFile.candidates($0, of: storage.name) } ?? [] }
    }
}
