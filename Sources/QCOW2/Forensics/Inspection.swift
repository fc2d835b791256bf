// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What an image says about itself, as far as it can be read at all.
///
/// ```swift
/// let inspection = try Inspection(path: "evidence.qcow2")
/// for finding in inspection.findings { print(finding.code, finding.message) }
/// ```
///
/// For images that ``Image`` refuses as well as for those that it opens: of an unknown version, with an unknown
/// feature, truncated, damaged. Nothing is written, no second file is opened, and no name inside the image is followed.
/// Memory and work are bounded by what the file has on the disk and by ``InspectionOptions``, whatever the fields claim.
public struct Inspection: Sendable {
    /// The file's length.
    public internal(set) var fileByteCount: UInt64
    /// Whether the file starts with the magic number of qcow2.
    public internal(set) var hasMagic = false
    /// Why ``Image`` refuses to open the image; `nil` when it doesn't.
    public internal(set) var openingError: QCOW2Error?

    /// The format's version, which may be an unknown one; `nil` in a file that ends before it.
    public internal(set) var version: UInt32?
    /// Bytes of the disk that the guest sees, as the header claims.
    public internal(set) var virtualSize: UInt64?
    /// Bytes of a cluster; `nil` when the header's value is none that the format knows.
    public internal(set) var clusterSize: Int?
    /// Bits of a refcount; `nil` when the header's value is none that the format knows.
    public internal(set) var refcountBits: Int?
    /// How the guest's data is encrypted, as the header's number; 0 is not at all, 1 AES, 2 LUKS.
    public internal(set) var encryptionMethod: UInt32?
    /// How compressed clusters are compressed, as the header's number; 0 is deflate, 1 zstd.
    public internal(set) var compressionType: UInt8?
    /// The feature bits that are set.
    public internal(set) var features: [FeatureBit] = []
    /// The records behind the header, in the order of the file; of very many, the first ones.
    public internal(set) var extensions: [ExtensionRecord] = []
    /// The name of the backing file, which is never opened.
    public internal(set) var backingFile: BackingFileName?
    /// The tables that the header and its extensions point to.
    public internal(set) var tables: [Table] = []
    /// The entries of the snapshot table that parse, in table order.
    public internal(set) var snapshots: [SnapshotRecord] = []
    /// Entries of earlier snapshot tables for snapshots that the image doesn't have any more.
    public internal(set) var deletedSnapshots: [SnapshotRemnant] = []
    /// Entries of snapshot tables that belong to another image, inside the file: on the guest's disk, now or earlier.
    public internal(set) var nestedSnapshots: [SnapshotRemnant] = []
    /// L1 tables that nothing refers to: of deleted snapshots, or of earlier states of the disk.
    public internal(set) var oldL1Tables: [TableRemnant] = []
    /// What the clusters are used for; `nil` when that can't be known.
    public internal(set) var clusters: ClusterSummary?

    /// What an examiner should know, in the order in which it was found.
    public var findings: [Finding] { collected.findings }
    /// How many findings there are of each code, with those that ``InspectionOptions/findingLimit`` left out.
    public var findingCounts: [Finding.Code: UInt64] { collected.counts }
    /// The structures that were read, field by field with the bytes as they are.
    public private(set) var dump: [AnnotatedStructure] = []
    /// Whether there are more structures or entries than ``dump`` has.
    public internal(set) var isDumpCut = false

    var collected: FindingCollector
    /// Parts of the file in use, by name, for what is behind the end of each.
    var regions: [Region] = []
    /// What was found while searching, before it is known what is a copy of what.
    var remnants = RemnantCollector()
    /// The first cluster in use that has the refcount 0.
    var firstUncounted: HostOffset?
    /// Asks whether to go on.
    var work: WorkMeter

    /// Inspects the image in a storage.
    ///
    /// Costs a read of every table, and of the clusters that nothing refers to, up to the limits of `options`.
    ///
    /// - Throws: ``QCOW2Error/Code/inputOutput`` when not even the file's length can be learned, and
    ///   ``QCOW2Error/Code/cancelled``; reads that fail are findings.
    public init<S: Storage & ~Copyable>(
        of storage: borrowing S, options: InspectionOptions = InspectionOptions()
    ) throws(QCOW2Error) {
        fileByteCount = try storage.byteCount()
        collected = FindingCollector(limit: options.findingLimit)
        work = WorkMeter(options.progress)
        let list = FindingList()
        let sink = FindingSink(limitPerCode: options.findingLimit, tolerating: .everything) { list.add($0) }
        let reading = readImage(storage, sink)
        collected.take(list)
        try work.checkForWish()
        if let reading {
            inspectHeader(reading)
            inspectExtensions(reading)
            try inspectTables(reading, from: storage)
            try inspectSnapshots(reading, from: storage)
        }
        if let reading, reading.fields.geometry != nil {
            try inspectClusters(reading, from: storage, options, sink, list)
        } else {
            try searchWhole(of: storage, options)
        }
        collected.take(list)
        collected.count(sink)
    }

    /// Reads what the image says; nothing, where there is no header.
    private mutating func readImage<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ sink: FindingSink
    ) -> ImageReading? {
        var reading: ImageReading?
        do throws(QCOW2Error) {
            reading = try ImageReading(reading: storage, sink)
        } catch {
            if error.code == .inputOutput { report(.readFailed, error.message, at: error.offset) }
            openingError = error
        }
        openingError = sink.refusal ?? openingError
        let fields = reading?.fields ?? HeaderFields(read(ImageGeometry.sectorSize, at: HostOffset(0), from: storage))
        hasMagic = fields.hasMagic
        version = fields.version
        if !fields.bytes.isEmpty {
            annotate("header", at: HostOffset(0), Header.annotatedFields(ofWhateverIn: fields.bytes.span))
        }
        return reading
    }

    /// Inspects an image file, which is opened for reading only and not changed in any way.
    ///
    /// - Throws: What ``FileStorage/init(path:for:locks:)`` throws, and ``QCOW2Error/Code/inputOutput``.
    public init(
        path: String, access: FileStorage.Access = .reading, options: InspectionOptions = InspectionOptions()
    ) throws(QCOW2Error) {
        let storage = try FileStorage(path: path, for: access == .writing ? .reading : access)
        try self.init(of: storage, options: options)
    }

    /// Reads the part of a range that the file has; nothing, and a finding, when reading fails.
    mutating func read<S: Storage & ~Copyable>(
        _ byteCount: UInt64, at offset: HostOffset, from storage: borrowing S
    ) -> [UInt8] {
        guard offset.rawValue < fileByteCount else { return [] }
        do throws(QCOW2Error) {
            return try storage.readBytes(Int(min(byteCount, fileByteCount - offset.rawValue)), at: offset)
        } catch {
            report(.readFailed, error.message, at: error.offset ?? offset)
            return []
        }
    }

    mutating func annotate(_ name: String, at offset: HostOffset, _ fields: @autoclosure () -> [AnnotatedField]) {
        if hasRoomInDump {
            dump.append(AnnotatedStructure(name: name, offset: offset, fields: fields()))
        } else {
            isDumpCut = true
        }
    }

    /// Whether the dump takes one more structure; of very many it has the first ones.
    var hasRoomInDump: Bool { dump.count < 8192 }

    mutating func report(
        _ rule: FindingRule, _ message: @autoclosure () -> String, at offset: HostOffset? = nil,
        in table: String? = nil, index: UInt64? = nil, _ confidence: Finding.Confidence = .confirmed,
        because reason: String? = nil
    ) {
        collected.add(rule.code) {
            Finding(rule, message(), at: offset, in: table, index: index, confidence, because: reason)
        }
    }
}

/// What a sink hands out, until an inspection takes it.
final class FindingList {
    fileprivate var findings: [Finding] = []

    func add(_ finding: Finding) { findings.append(finding) }
}

/// Keeps the first findings of each code, and counts all.
struct FindingCollector: Sendable {
    let limit: Int
    private(set) var findings: [Finding] = []
    private(set) var counts: [Finding.Code: UInt64] = [:]

    init(limit: Int) { self.limit = limit }

    mutating func add(_ code: Finding.Code, _ finding: () -> Finding) {
        let count = counts[code, default: 0]
        counts[code] = count + 1
        if count < UInt64(max(0, limit)) { findings.append(finding()) }
    }

    /// Takes what the reading and the sweep found since it was called last.
    mutating func take(_ list: FindingList) {
        findings += list.findings
        list.findings = []
    }

    /// Adds what the reading and the sweep counted.
    mutating func count(_ sink: FindingSink) {
        for (rule, tally) in sink.tallies { counts[rule.code, default: 0] += tally.count }
    }
}
