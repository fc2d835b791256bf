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
        /// The length that is claimed; `nil` when the claim is too large for any file.
        public let byteCount: UInt64?
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
        /// Whether the snapshot's data may still be there.
        public internal(set) var l1State: L1State
        /// How many copies were found.
        public internal(set) var copyCount: Int
    }

    /// An L1 table that nothing refers to.
    public struct TableRemnant: Hashable, Sendable {
        public let offset: HostOffset
        public let place: Place
        /// How many entries of its first cluster point to an L2 table.
        public let usedEntryCount: Int
    }

    /// What kind of place a remnant was found in.
    public enum Place: String, Hashable, Sendable {
        /// A cluster with refcount 0.
        case free
        /// A cluster with a refcount that nothing refers to.
        case leaked
        /// Behind the end of a table, in its last cluster.
        case slack
        /// In a file whose clusters are not known.
        case unknown
    }

    /// What has become of the L1 table of a snapshot that was deleted.
    public enum L1State: String, Hashable, Sendable {
        /// The table is still there, and points into the file.
        case readable
        /// Its cluster is in use for something else.
        case reused
        /// There are no more than zeros.
        case empty
        /// There is something else, or the file ends before it.
        case lost
    }

    /// How many clusters of the file are what.
    public struct ClusterSummary: Hashable, Sendable {
        /// Clusters of the file; the last may be partial.
        public internal(set) var total: UInt64 = 0
        /// Those that the header reaches.
        public internal(set) var referenced: UInt64 = 0
        /// Those with a refcount that nothing refers to.
        public internal(set) var leaked: UInt64 = 0
        /// Those with refcount 0 that nothing refers to.
        public internal(set) var free: UInt64 = 0
        /// Free clusters that aren't zeros.
        public internal(set) var freeWithData: UInt64 = 0
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
        /// Whether bytes behind it, in its last cluster, are slack.
        let hasSlack: Bool
    }
}
