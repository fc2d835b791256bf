// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Inspection {
    /// A feature bit that is set in the header.
    public struct FeatureBit: Hashable, Sendable {
        /// Which of the header's three words the bit is in.
        public enum Kind: String, Hashable, Sendable, CaseIterable {
            case incompatible, compatible, autoclear
        }

        public let kind: Kind
        /// The bit's number: 0 to 63.
        public let bit: Int
        /// The name that the format gives to the bit, or else the image's own feature name table.
        public let name: String?
        /// Whether this library knows the bit.
        public let isKnown: Bool
    }

    /// A record behind the header.
    public struct ExtensionRecord: Hashable, Sendable {
        public let type: UInt32
        /// The name that the format gives to the type.
        public let name: String?
        public let offset: HostOffset
        /// The length that the record claims.
        public let claimedByteCount: UInt32
        /// The data, as far as the header's cluster has it.
        public let data: [UInt8]
    }

    /// The name of a backing file, which nobody checked.
    public struct BackingFileName: Hashable, Sendable {
        public let offset: HostOffset
        public let nameBytes: [UInt8]
        /// The format that the image gives, if it gives one.
        public let format: String?

        /// The name as text; bytes that aren't UTF-8 are replaced.
        public var name: String { String(decoding: nameBytes, as: UTF8.self) }
    }

    /// A table that something points to.
    public struct Table: Hashable, Sendable {
        public let name: String
        public let offset: HostOffset
        /// The length that is claimed.
        public let byteCount: UInt64
        /// How many of those bytes the file has.
        public let presentByteCount: UInt64
    }

    /// An entry of the snapshot table.
    public struct SnapshotRecord: Hashable, Sendable {
        /// The entry's number in the table, counted from 0.
        public let index: Int
        public let offset: HostOffset
        public let snapshot: Snapshot
        public let l1TableOffset: HostOffset
        public let l1EntryCount: UInt32
    }

    /// A snapshot table's entry that is left from an earlier table.
    public struct SnapshotRemnant: Hashable, Sendable {
        /// Where the first copy is.
        public let offset: HostOffset
        /// What was at that place.
        public let place: Place
        public let snapshot: Snapshot
        public let l1TableOffset: HostOffset
        public let l1EntryCount: UInt32
        /// What was seen of the snapshot's tables and data.
        public internal(set) var survey = TreeSurvey()
        /// What has become of its L1 table.
        public var l1State: L1State { survey.l1State }
        /// How many copies were found.
        public internal(set) var copyCount: Int
        /// How sure it is that the snapshot was one of this image.
        public internal(set) var confidence = Finding.Confidence.unconfirmed
        /// Why.
        public internal(set) var confidenceReason = ""
        /// Where the image starts that the snapshot is one of, if it is another one, inside the file.
        public internal(set) var nestedImageOffset: HostOffset?
        /// Whether a copy lies beside the entry of a snapshot that the image still has.
        var isBesidePresent = false
    }

    /// An L1 table that nothing refers to.
    public struct TableRemnant: Hashable, Sendable {
        public let offset: HostOffset
        public let place: Place
        /// How many entries of its first cluster point to an L2 table.
        public let usedEntryCount: Int
        /// How sure it is that it is one.
        public let confidence: Finding.Confidence
        /// Why.
        public let confidenceReason: String
    }

    /// What was seen of a tree that nothing refers to, from its L1 table down.
    ///
    /// Of data nobody can say whether it is what it was: a cluster may have been given to something else and freed
    /// again. So clusters of data are only counted, by whether something refers to them now.
    public struct TreeSurvey: Hashable, Sendable {
        /// What has become of the L1 table.
        public internal(set) var l1State = L1State.notLookedAt
        /// Clusters of the L1 table.
        public internal(set) var l1ClusterCount: UInt64 = 0
        /// Those of them that nothing uses now, and that hold nothing but possible entries.
        public internal(set) var readableL1ClusterCount: UInt64 = 0
        /// L2 tables that the readable clusters of the L1 table point to.
        public internal(set) var l2TableCount: UInt64 = 0
        /// Those of them that nothing uses now, and that hold nothing but possible entries.
        public internal(set) var readableL2TableCount: UInt64 = 0
        /// Those that are L2 tables of a state now, and may have been written to since.
        public internal(set) var sharedL2TableCount: UInt64 = 0
        /// Those whose clusters are used for something else now, or hold something else.
        public internal(set) var overwrittenL2TableCount: UInt64 = 0
        /// Those past the end of the file.
        public internal(set) var cutL2TableCount: UInt64 = 0
        /// Clusters of data that the readable L2 tables map, and that nothing refers to.
        public internal(set) var unreferencedDataClusterCount: UInt64 = 0
        /// Clusters of data that the readable L2 tables map, and that something refers to: a state that shares them, or
        /// one that they were given to.
        public internal(set) var referencedDataClusterCount: UInt64 = 0
        /// Whether all tables were looked at, and not only as many as the limit allows.
        public internal(set) var isComplete = false
    }

    /// What kind of place a remnant was found in.
    public enum Place: String, Hashable, Sendable {
        /// A cluster with refcount 0.
        case free
        /// A cluster with a refcount that nothing refers to.
        case leaked
        /// Behind the end of a table, in its last cluster.
        case slack
        /// In a cluster that a state maps for its guest.
        case guestData = "guest-data"
        /// In a file whose clusters are not known.
        case unknown
    }

    /// What has become of the L1 table of a snapshot that was deleted.
    public enum L1State: String, Hashable, Sendable {
        /// Every cluster of the table is still there, and its entries point into the file.
        case readable
        /// The file ends inside the table.
        case cut
        /// Some of its clusters are in use for something else, or hold something else.
        case overwritten
        /// All of its clusters are in use for something else.
        case reused
        /// There are no more than zeros.
        case empty
        /// There is something else, or the file ends before it.
        case lost
        /// Nobody looked: what the clusters are used for isn't known, or a limit was reached.
        case notLookedAt = "not-looked-at"
    }

    /// How many clusters of the file are what.
    public struct ClusterSummary: Hashable, Sendable {
        /// Clusters of the file; the last may be partial.
        public internal(set) var total: UInt64 = 0
        /// Those that the header reaches.
        public internal(set) var referenced: UInt64 = 0
        /// Those with a refcount that nothing refers to; that is known to, where ``areReferencesKnown`` is false.
        public internal(set) var leaked: UInt64 = 0
        /// Those with refcount 0 that nothing refers to.
        public internal(set) var free: UInt64 = 0
        /// Those with refcount 0 that the header reaches all the same.
        public internal(set) var referencedWithoutRefcount: UInt64 = 0
        /// Free clusters that aren't zeros.
        public internal(set) var freeWithData: UInt64 = 0
        /// Whether everything was read that can refer to a cluster.
        ///
        /// If not, what it refers to counts as leaked or free.
        public internal(set) var areReferencesKnown = true
        /// Whether the search stopped early, so that leaked and free clusters are more than these.
        public internal(set) var isCut = false
    }

    /// A structure of the file and its fields.
    public struct AnnotatedStructure: Hashable, Sendable {
        public let name: String
        public let offset: HostOffset
        public let fields: [AnnotatedField]
    }

    /// A part of the file that something claims.
    struct Region: Hashable, Sendable {
        let name: String
        let offset: HostOffset
        let byteCount: UInt64
    }
}
