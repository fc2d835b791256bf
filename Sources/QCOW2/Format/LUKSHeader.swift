// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What the header of a LUKS-encrypted image says about its keys; none of them.
///
/// Section "5.2 Encryption"; the fields are those of the LUKS 1 on-disk format.
public struct LUKSHeader: Hashable, Sendable {
    /// The cipher, such as `aes`.
    public let cipherName: String
    /// The mode with its generator of initial vectors, such as `xts-plain64`.
    public let cipherMode: String
    /// The hash, such as `sha256`.
    public let hash: String
    /// Where the guest's data would start behind the header in a file of its own, in bytes.
    public let payloadOffset: UInt64
    /// Bytes of the master key.
    public let keyByteCount: UInt32
    /// Rounds of the master key's digest.
    public let masterKeyIterations: UInt32
    /// The volume's identity.
    public let uuid: String
    /// The eight places for passphrases.
    public let slots: [Slot]

    /// A place for a passphrase.
    public struct Slot: Hashable, Sendable {
        /// Whether there is a passphrase in it.
        public let isActive: Bool
        /// Rounds of the passphrase's derivation.
        public let iterations: UInt32
        /// Where its key material is, in bytes from the header's start.
        public let keyOffset: UInt64
        /// Into how many stripes the key material is split.
        public let stripes: UInt32

        /// Where the key material ends, in bytes from the header's start.
        func end(_ header: LUKSHeader) -> UInt64 {
            keyOffset.addingReportingOverflow(UInt64(stripes) * UInt64(header.keyByteCount)).partialValue
        }
    }

    private enum Layout {
        static let version = Field<UInt16>("version", at: 6)
        static let cipherName = 8..<40
        static let cipherMode = 40..<72
        static let hash = 72..<104
        static let payloadOffset = Field<UInt32>("payload_offset", at: 104)
        static let keyByteCount = Field<UInt32>("key_bytes", at: 108)
        static let masterKeyIterations = Field<UInt32>("mk_digest_iter", at: 164)
        static let uuid = 168..<208
        static let slots = 208
        static let slotByteCount = 48
        static let slotCount = 8
        static let slotActive = Field<UInt32>("active", at: 0)
        static let slotIterations = Field<UInt32>("iterations", at: 4)
        static let slotKeyOffset = Field<UInt32>("key_material_offset", at: 40)
        static let slotStripes = Field<UInt32>("stripes", at: 44)
    }

    /// Bytes of the header, without key material.
    static let byteCount = 592
    static let magic: [UInt8] = [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]
    private static let activeSlot: UInt32 = 0x00AC_71F3

    /// Decodes the header at the start of `bytes`.
    ///
    /// - Throws: ``QCOW2Error/Code/corrupt`` without the magic number, for another version than 1, or when it is cut off.
    init(decoding bytes: Span<UInt8>, at base: HostOffset) throws(QCOW2Error) {
        guard bytes.count >= Self.byteCount else {
            throw .truncated("LUKS header", needed: Self.byteCount, have: bytes.count, at: base)
        }
        guard [UInt8](copying: bytes, 0..<6) == Self.magic, Layout.version.load(from: bytes) == 1 else {
            throw .invalid("LUKS header", "it has no magic number, or another version than 1", at: base)
        }
        func text(_ range: Range<Int>) -> String {
            String(decoding: [UInt8](copying: bytes, range).prefix { $0 != 0 }, as: UTF8.self)
        }
        cipherName = text(Layout.cipherName)
        cipherMode = text(Layout.cipherMode)
        hash = text(Layout.hash)
        payloadOffset = UInt64(Layout.payloadOffset.load(from: bytes)) * ImageGeometry.sectorSize
        keyByteCount = Layout.keyByteCount.load(from: bytes)
        masterKeyIterations = Layout.masterKeyIterations.load(from: bytes)
        uuid = text(Layout.uuid)
        var slots: [Slot] = []
        for index in 0..<Layout.slotCount {
            let start = Layout.slots + index * Layout.slotByteCount
            let slot = bytes.extracting(start..<(start + Layout.slotByteCount))
            slots.append(
                Slot(
                    isActive: Layout.slotActive.load(from: slot) == Self.activeSlot,
                    iterations: Layout.slotIterations.load(from: slot),
                    keyOffset: UInt64(Layout.slotKeyOffset.load(from: slot)) * ImageGeometry.sectorSize,
                    stripes: Layout.slotStripes.load(from: slot)))
        }
        self.slots = slots
    }
}
