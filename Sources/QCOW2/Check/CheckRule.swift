// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What a check looks for: the codes of its findings.
///
/// The invariants are those of section "7.1 Invariants a checker verifies".
enum CheckRule: String, CaseIterable, Sendable {
    // Header and extensions.
    case headerFieldInvalid = "header-field-invalid"
    case headerLengthOdd = "header-length-odd"
    case featuresContradict = "features-contradict"
    case extensionInvalid = "extension-invalid"
    case extensionDuplicate = "extension-duplicate"
    case encryptionInvalid = "encryption-invalid"
    case bitmapsMissing = "bitmaps-missing"
    case bitmapsInvalid = "bitmaps-invalid"
    case markedDirty = "marked-dirty"
    case markedCorrupt = "marked-corrupt"
    // Tables.
    case tableOutOfBounds = "table-out-of-bounds"
    case tablesOverlap = "tables-overlap"
    case snapshotTableInvalid = "snapshot-table-invalid"
    case snapshotEntryInvalid = "snapshot-entry-invalid"
    case snapshotEntryIncomplete = "snapshot-entry-incomplete"
    case snapshotL1Shared = "snapshot-l1-shared"
    case activeL1Shared = "active-l1-shared"
    case snapshotDiskSize = "snapshot-disk-size"
    case snapshotL1TooSmall = "snapshot-l1-too-small"
    case snapshotVMState = "snapshot-vm-state"
    case snapshotIDUnusual = "snapshot-id-unusual"
    case snapshotNameUnusual = "snapshot-name-unusual"
    case activeVMState = "active-vm-state"
    case snapshotBehindTable = "snapshot-behind-table"
    // Mappings.
    case l1EntryInvalid = "l1-entry-invalid"
    case l1EntryReservedBits = "l1-entry-reserved-bits"
    case l2TableTwiceInTree = "l2-table-twice-in-tree"
    case l2EntryReservedBits = "l2-entry-reserved-bits"
    case l2EntryZeroBit = "l2-entry-zero-bit"
    case l2EntryMisaligned = "l2-entry-misaligned"
    case l2EntryPastEnd = "l2-entry-past-end"
    case compressedEntryInvalid = "compressed-entry-invalid"
    case compressedDataInvalid = "compressed-data-invalid"
    case subclustersInvalid = "subclusters-invalid"
    case dataInMetadata = "data-in-metadata"
    case clusterMappedTwice = "cluster-mapped-twice"
    case dataFileContradicted = "data-file-contradicted"
    // Refcounts and copied flags.
    case refcountTableInvalid = "refcount-table-invalid"
    case refcountTableEntryInvalid = "refcount-table-entry-invalid"
    case refcountBlockTwice = "refcount-block-twice"
    case refcountTooLow = "refcount-too-low"
    case refcountTooHigh = "refcount-too-high"
    case refcountOverflow = "refcount-overflow"
    case referencesUnknown = "references-unknown"
    case copiedFlagL1 = "copied-flag-l1"
    case copiedFlagL2 = "copied-flag-l2"
    case copiedFlagCompressed = "copied-flag-compressed"
    case copiedFlagUnallocated = "copied-flag-unallocated"
    case snapshotWritable = "snapshot-writable"

    var severity: Finding.Severity {
        switch self {
        case .snapshotWritable, .activeL1Shared: .critical
        case .refcountTooHigh: .leak
        case .headerLengthOdd, .extensionDuplicate, .markedDirty, .markedCorrupt, .snapshotIDUnusual,
            .snapshotNameUnusual, .activeVMState, .snapshotBehindTable, .copiedFlagUnallocated, .referencesUnknown:
            .notice
        default: .corruption
        }
    }

    /// Whether an image of which it is found is refused when it is opened.
    var forbidsOpening: Bool {
        switch self {
        case .headerFieldInvalid, .extensionInvalid, .encryptionInvalid, .tableOutOfBounds, .refcountTableInvalid,
            .snapshotTableInvalid, .snapshotEntryInvalid:
            true
        default: false
        }
    }

    var code: Finding.Code { Finding.Code(rawValue: rawValue) }
}
