// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Image where S: ~Copyable {
    /// The name of the external data file that holds the guest's data, if there is one.
    ///
    /// Opens nothing.
    ///
    /// Section "5.3 External data file".
    public var externalDataFileNameBytes: [UInt8]? {
        guard header.incompatibleFeatures.contains(.externalDataFile) else { return nil }
        return opened.extensions.last(.externalDataFileName)?.data
    }

    /// How compressed clusters are compressed.
    public var compressionType: CompressionType { header.compressionType ?? .deflate }

    /// What the LUKS header says; `nil` when the image isn't encrypted with LUKS.
    ///
    /// Reads 592 bytes. The offsets in it count from its own start.
    ///
    /// - Throws: ``QCOW2Error`` with the code `corrupt` or `inputOutput`.
    public func luksHeader() throws(QCOW2Error) -> LUKSHeader? {
        guard header.encryption == .luks, let record = opened.extensions.last(.encryption) else { return nil }
        let region = try EncryptionHeader(decoding: record, in: header.geometry).region
        return try LUKSHeader(reading: storage, at: region)
    }
}

extension Image where S == FileStorage {
    /// How other programs are kept from using the image in a way that excludes this one.
    public var locking: FileStorage.Locking { storage.locking }
}
