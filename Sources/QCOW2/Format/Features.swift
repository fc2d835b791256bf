// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Features without which an image must not even be opened.
///
/// Section "1.2 Feature bits".
public struct IncompatibleFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Refcounts and copied flags may be wrong: the last writer didn't close the image.
    public static let dirty = Self(rawValue: 1 << 0)
    /// A writer found the image's metadata damaged.
    public static let corrupt = Self(rawValue: 1 << 1)
    /// Guest clusters are in another file.
    public static let externalDataFile = Self(rawValue: 1 << 2)
    /// The header names a compression type other than deflate.
    public static let compressionType = Self(rawValue: 1 << 3)
    /// L2 entries have 16 bytes and describe 32 subclusters.
    public static let extendedL2 = Self(rawValue: 1 << 4)

    /// Every feature that this library knows.
    static let known: Self = [.dirty, .corrupt, .externalDataFile, .compressionType, .extendedL2]
}

/// Features that a reader or writer may ignore.
///
/// Section "1.2 Feature bits".
public struct CompatibleFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// A writer may postpone refcount updates under the dirty bit.
    public static let lazyRefcounts = Self(rawValue: 1 << 0)
}

/// Features that hold only while every writer understands them.
///
/// Section "1.2 Feature bits".
public struct AutoclearFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The bitmaps extension is present and its bitmaps are consistent with the disk.
    public static let bitmaps = Self(rawValue: 1 << 0)
    /// The external data file is a valid raw disk by itself.
    public static let rawExternalData = Self(rawValue: 1 << 1)
}

/// How the guest's data is encrypted.
///
/// Section "5.2 Encryption".
public enum EncryptionMethod: UInt32, Hashable, Sendable {
    case none = 0
    /// The legacy method, AES in CBC mode.
    case aes = 1
    case luks = 2
}

/// How compressed clusters are compressed.
public enum CompressionType: UInt8, Hashable, Sendable {
    case deflate = 0
    case zstd = 1
}
