// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an ``Inspection`` finds; the article "Inspecting images" says what to make of each.
extension Finding.Code {
    // The file and its header.
    static let notQCOW2 = Self(rawValue: "not-qcow2")
    static let cannotBeOpened = Self(rawValue: "cannot-be-opened")
    static let versionUnknown = Self(rawValue: "version-unknown")
    static let headerTruncated = Self(rawValue: "header-truncated")
    static let headerFieldInvalid = Self(rawValue: "header-field-invalid")
    static let headerFieldsUnknown = Self(rawValue: "header-fields-unknown")
    static let diskSizeOdd = Self(rawValue: "disk-size-odd")
    static let incompatibleFeatureUnknown = Self(rawValue: "incompatible-feature-unknown")
    static let compatibleFeatureUnknown = Self(rawValue: "compatible-feature-unknown")
    static let autoclearFeatureUnknown = Self(rawValue: "autoclear-feature-unknown")
    static let compressionTypeUnknown = Self(rawValue: "compression-type-unknown")
    static let markedDirty = Self(rawValue: "marked-dirty")
    static let markedCorrupt = Self(rawValue: "marked-corrupt")
    static let externalDataFile = Self(rawValue: "external-data-file")
    static let encrypted = Self(rawValue: "encrypted")
    static let encryptionInvalid = Self(rawValue: "encryption-invalid")

    // Behind the header.
    static let extensionInvalid = Self(rawValue: "extension-invalid")
    static let extensionUnknown = Self(rawValue: "extension-unknown")
    static let extensionDuplicate = Self(rawValue: "extension-duplicate")
    static let backingFile = Self(rawValue: "backing-file")
    static let backingFileOutside = Self(rawValue: "backing-file-outside")
    static let backingFormatMissing = Self(rawValue: "backing-format-missing")
    static let backingFileSpecial = Self(rawValue: "backing-file-special")
    static let bitmaps = Self(rawValue: "bitmaps")
    static let bitmapsUntrusted = Self(rawValue: "bitmaps-untrusted")
    static let bitmapsInvalid = Self(rawValue: "bitmaps-invalid")

    // Tables.
    static let tableOutOfBounds = Self(rawValue: "table-out-of-bounds")
    static let tableMisaligned = Self(rawValue: "table-misaligned")
    static let tablesOverlap = Self(rawValue: "tables-overlap")
    static let entriesInvalid = Self(rawValue: "entries-invalid")
    static let referencesPastEnd = Self(rawValue: "references-past-end")
    static let activeVMState = Self(rawValue: "active-vm-state")

    // Snapshots.
    static let internalSnapshots = Self(rawValue: "internal-snapshots")
    static let snapshotEntryInvalid = Self(rawValue: "snapshot-entry-invalid")
    static let snapshotIDMissing = Self(rawValue: "snapshot-id-missing")
    static let snapshotIDUnusual = Self(rawValue: "snapshot-id-unusual")
    static let snapshotIDRepeated = Self(rawValue: "snapshot-id-repeated")
    static let snapshotNameUnusual = Self(rawValue: "snapshot-name-unusual")
    static let snapshotNameRepeated = Self(rawValue: "snapshot-name-repeated")
    static let snapshotDatesUnordered = Self(rawValue: "snapshot-dates-unordered")
    static let snapshotDateInvalid = Self(rawValue: "snapshot-date-invalid")
    static let snapshotDiskSize = Self(rawValue: "snapshot-disk-size")
    static let snapshotDiskSizeDiffers = Self(rawValue: "snapshot-disk-size-differs")
    static let snapshotExtraData = Self(rawValue: "snapshot-extra-data")
    static let vmState = Self(rawValue: "vm-state")
    static let staleSnapshotTable = Self(rawValue: "stale-snapshot-table")

    // Data that nothing shows.
    static let dataBehindHeader = Self(rawValue: "data-behind-header")
    static let dataInSlack = Self(rawValue: "data-in-slack")
    static let dataPastDisk = Self(rawValue: "data-past-disk")
    static let dataPastLastCluster = Self(rawValue: "data-past-last-cluster")
    static let freeClustersWithData = Self(rawValue: "free-clusters-with-data")
    static let leakedClusters = Self(rawValue: "leaked-clusters")
    static let clustersUncounted = Self(rawValue: "clusters-uncounted")
    static let nestedSnapshot = Self(rawValue: "nested-snapshot")
    static let deletedSnapshot = Self(rawValue: "deleted-snapshot")
    static let oldSnapshotTable = Self(rawValue: "old-snapshot-table")
    static let oldL1Table = Self(rawValue: "old-l1-table")

    // The inspection itself.
    static let searchCut = Self(rawValue: "search-cut")
    static let readFailed = Self(rawValue: "read-failed")

    /// Every code that an inspection uses.
    static let inspectionCodes: [Self] = [
        .notQCOW2, .cannotBeOpened, .versionUnknown, .headerTruncated, .headerFieldInvalid, .headerFieldsUnknown,
        .diskSizeOdd, .incompatibleFeatureUnknown, .compatibleFeatureUnknown, .autoclearFeatureUnknown,
        .compressionTypeUnknown, .clustersUncounted, .nestedSnapshot, .markedDirty,
        .markedCorrupt, .externalDataFile, .encrypted, .encryptionInvalid, .extensionInvalid, .extensionUnknown,
        .extensionDuplicate, .backingFile, .backingFileOutside, .backingFormatMissing, .backingFileSpecial, .bitmaps,
        .bitmapsUntrusted, .bitmapsInvalid, .tableOutOfBounds, .tableMisaligned, .tablesOverlap, .entriesInvalid,
        .referencesPastEnd, .activeVMState, .internalSnapshots, .snapshotEntryInvalid, .snapshotIDMissing,
        .snapshotIDUnusual, .snapshotIDRepeated, .snapshotNameUnusual, .snapshotNameRepeated, .snapshotDatesUnordered,
        .snapshotDateInvalid, .snapshotDiskSize, .snapshotDiskSizeDiffers, .snapshotExtraData, .vmState,
        .staleSnapshotTable, .dataBehindHeader,
        .dataInSlack, .dataPastDisk, .dataPastLastCluster, .freeClustersWithData, .leakedClusters, .deletedSnapshot,
        .oldSnapshotTable, .oldL1Table, .searchCut, .readFailed,
    ]
}
