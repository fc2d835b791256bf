// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Everything that a check or an inspection may find: the catalogue of the codes of findings.
///
/// A rule has one code and one severity, whoever finds it. The invariants are those of section "7.1 Invariants a checker
/// verifies"; the articles "Checking and repairing" and "Inspecting images" say what to make of each.
enum FindingRule: String, CaseIterable, Sendable {
    // The file and its header.
    case notQCOW2 = "not-qcow2"
    case versionUnknown = "version-unknown"
    case headerTruncated = "header-truncated"
    case headerFieldInvalid = "header-field-invalid"
    case headerLengthOdd = "header-length-odd"
    case headerFieldsUnknown = "header-fields-unknown"
    case diskSizeOdd = "disk-size-odd"
    case featuresContradict = "features-contradict"
    case incompatibleFeatureUnknown = "incompatible-feature-unknown"
    case compatibleFeatureUnknown = "compatible-feature-unknown"
    case autoclearFeatureUnknown = "autoclear-feature-unknown"
    case compressionTypeUnknown = "compression-type-unknown"
    case markedDirty = "marked-dirty"
    case markedCorrupt = "marked-corrupt"
    case externalDataFile = "external-data-file"
    case encrypted = "encrypted"
    case encryptionInvalid = "encryption-invalid"
    // Behind the header.
    case extensionInvalid = "extension-invalid"
    case extensionUnknown = "extension-unknown"
    case extensionDuplicate = "extension-duplicate"
    case backingFile = "backing-file"
    case backingFormatMissing = "backing-format-missing"
    case backingFileSpecial = "backing-file-special"
    case bitmaps = "bitmaps"
    case bitmapsMissing = "bitmaps-missing"
    case bitmapsInvalid = "bitmaps-invalid"
    case bitmapsUntrusted = "bitmaps-untrusted"
    // Tables.
    case tableOutOfBounds = "table-out-of-bounds"
    case tablesOverlap = "tables-overlap"
    case activeVMState = "active-vm-state"
    // Snapshots.
    case internalSnapshots = "internal-snapshots"
    case snapshotTableInvalid = "snapshot-table-invalid"
    case snapshotEntryInvalid = "snapshot-entry-invalid"
    case snapshotEntryIncomplete = "snapshot-entry-incomplete"
    case snapshotExtraData = "snapshot-extra-data"
    case snapshotL1Shared = "snapshot-l1-shared"
    case activeL1Shared = "active-l1-shared"
    case snapshotDiskSize = "snapshot-disk-size"
    case snapshotDiskSizeDiffers = "snapshot-disk-size-differs"
    case snapshotL1TooSmall = "snapshot-l1-too-small"
    case snapshotVMState = "snapshot-vm-state"
    case vmState = "vm-state"
    case snapshotIDMissing = "snapshot-id-missing"
    case snapshotIDUnusual = "snapshot-id-unusual"
    case snapshotIDRepeated = "snapshot-id-repeated"
    case snapshotNameUnusual = "snapshot-name-unusual"
    case snapshotNameRepeated = "snapshot-name-repeated"
    case snapshotDateInvalid = "snapshot-date-invalid"
    case snapshotDatesUnordered = "snapshot-dates-unordered"
    case snapshotBehindTable = "snapshot-behind-table"
    case staleSnapshotTable = "stale-snapshot-table"
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
    case clustersUncounted = "clusters-uncounted"
    case leakedClusters = "leaked-clusters"
    // Data that nothing shows.
    case dataBehindHeader = "data-behind-header"
    case dataInSlack = "data-in-slack"
    case dataPastDisk = "data-past-disk"
    case dataPastLastCluster = "data-past-last-cluster"
    case freeClustersWithData = "free-clusters-with-data"
    case deletedSnapshot = "deleted-snapshot"
    case nestedSnapshot = "nested-snapshot"
    case oldSnapshotTable = "old-snapshot-table"
    case oldL1Table = "old-l1-table"
    // The inspection itself.
    case searchCut = "search-cut"
    case readFailed = "read-failed"

    var severity: Finding.Severity {
        switch self {
        case .versionUnknown, .incompatibleFeatureUnknown, .compressionTypeUnknown: .unsupported
        case .headerLengthOdd, .headerFieldsUnknown, .diskSizeOdd, .compatibleFeatureUnknown, .autoclearFeatureUnknown,
            .markedDirty, .externalDataFile, .encrypted, .extensionUnknown, .extensionDuplicate, .backingFile,
            .backingFormatMissing, .backingFileSpecial, .bitmaps, .bitmapsUntrusted, .activeVMState, .internalSnapshots,
            .snapshotExtraData, .snapshotDiskSizeDiffers, .vmState, .snapshotIDMissing, .snapshotIDUnusual,
            .snapshotIDRepeated, .snapshotNameUnusual, .snapshotNameRepeated, .snapshotDateInvalid,
            .snapshotDatesUnordered, .snapshotBehindTable, .staleSnapshotTable, .copiedFlagUnallocated,
            .referencesUnknown, .dataBehindHeader, .dataInSlack, .dataPastDisk, .dataPastLastCluster,
            .freeClustersWithData, .deletedSnapshot, .nestedSnapshot, .oldSnapshotTable, .oldL1Table, .searchCut:
            .notice
        case .refcountTooHigh, .leakedClusters: .leak
        case .snapshotWritable, .activeL1Shared: .critical
        default: .corruption
        }
    }

    /// Whether an image of which it is found is refused when it is opened.
    var forbidsOpening: Bool {
        switch self {
        case .notQCOW2, .versionUnknown, .headerTruncated, .headerFieldInvalid, .incompatibleFeatureUnknown,
            .compressionTypeUnknown, .extensionInvalid, .encryptionInvalid, .tableOutOfBounds, .refcountTableInvalid,
            .snapshotTableInvalid, .snapshotEntryInvalid, .readFailed:
            true
        default: false
        }
    }

    /// Whether it is a mark that a writer set, and says nothing by itself.
    var isMark: Bool { self == .markedDirty || self == .markedCorrupt }

    var code: Finding.Code { Finding.Code(rawValue: rawValue) }
}
