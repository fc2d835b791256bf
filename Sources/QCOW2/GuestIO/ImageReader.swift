// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads every state of an image's disk, from any number of threads at once.
///
/// ```swift
/// let reader = try ImageReader(Image.open("disk.qcow2", for: .reading), backing: .sameDirectory)
/// let view = try reader.view(of: .snapshot(.name("before-upgrade")))
/// let firstSector = try view.read(512, at: GuestOffset(0))
/// ```
///
/// Takes the image over, and keeps it open as long as the reader or one of its views lives; ``image`` still answers
/// what an image answers. Changing the file meanwhile makes what is read meaningless.
///
/// Backing files are opened with the reader, as its policy allows, and stay open with it. One that wasn't allowed or
/// can't be opened is an error where its data is needed, and nowhere else: what the image itself holds stays readable.
public final class ImageReader<S: Storage & Sendable & ~Copyable>: Sendable {
    /// The image, for everything but its data.
    public let image: Image<S>
    private let slices: L2SliceCache
    private let chain: BackingChain

    /// Takes over an image, and opens no other file.
    ///
    /// - Parameters:
    ///   - image: The image; any access will do.
    ///   - cacheByteCount: About how many bytes of L2 tables to keep in memory, once they have been read.
    /// - Throws: ``QCOW2Error/Code/inputOutput``.
    public init(_ image: consuming Image<S>, cacheByteCount: Int = 8 << 20) throws(QCOW2Error) {
        try image.endSession()
        slices = L2SliceCache(in: image.header.geometry, byteCount: cacheByteCount)
        chain = try BackingChain(closedBelow: image)
        self.image = image
    }

    private init(_ image: consuming Image<S>, _ chain: BackingChain, cacheByteCount: Int) {
        slices = L2SliceCache(in: image.header.geometry, byteCount: cacheByteCount)
        self.chain = chain
        self.image = image
    }

    /// The disk in one state.
    ///
    /// Reads that state's L1 table.
    ///
    /// - Throws: ``QCOW2Error`` with the code `noSuchSnapshot`, `ambiguousSnapshot`, `corrupt`, `inputOutput`, or
    ///   `unsupported` for an external data file. Encrypted images can be mapped, but not read.
    public func view(of state: DiskState = .active) throws(QCOW2Error) -> DiskView {
        try view(of: image.tree(of: state))
    }

    /// The disk as it was at a snapshot, by its index in the image's snapshots: they may share an ID or a name.
    ///
    /// - Throws: What ``view(of:)`` throws.
    public func view(ofSnapshotAt index: Int) throws(QCOW2Error) -> DiskView {
        guard image.entries.indices.contains(index) else {
            throw QCOW2Error(.noSuchSnapshot, "There is no snapshot with the index \(index) in '\(name)'.")
        }
        return try view(of: try image.tree(ofSnapshotAt: index))
    }

    private func view(of tree: StateTree) throws(QCOW2Error) -> DiskView {
        try image.checkDataIsHere()
        guard tree.virtualSize < 1 << 63 else {
            throw .invalid("disk size", "\(tree.virtualSize) bytes are more than any disk has", at: tree.l1TableOffset)
        }
        let layer = ChainLayer(file: self, byteCount: tree.virtualSize, image: try image.layer(tree, slices))
        return DiskView(tree, layer, chain)
    }
}

extension ImageReader where S == FileStorage {
    /// Takes over an image, and opens those files of its backing chain that the policy allows.
    ///
    /// - Parameters:
    ///   - image: The image; any access will do, and backing files are opened for reading.
    ///   - policy: Which files may be opened; asked for each one.
    ///   - cacheByteCount: About how many bytes of L2 tables to keep in memory, for each image of the chain.
    /// - Throws: ``QCOW2Error/Code/inputOutput`` for the image itself, but not for a backing file.
    public convenience init(
        _ image: consuming Image<FileStorage>, backing policy: BackingFilePolicy, cacheByteCount: Int = 8 << 20
    ) throws(QCOW2Error) {
        try image.endSession()
        let chain = try BackingChain(below: image, policy)
        self.init(image, chain, cacheByteCount: cacheByteCount)
    }
}

extension ImageReader: ReadableFile where S: ~Copyable {
    var name: String { image.storage.name }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) throws(QCOW2Error) {
        try image.storage.read(into: &buffer, at: offset)
    }

    func dataRange(in range: Range<UInt64>) throws(QCOW2Error) -> Range<UInt64>? {
        try image.storage.dataRange(in: range)
    }
}

extension Image where S: ~Copyable {
    /// One state, ready to be read; reads all of its L1 table.
    func layer(_ tree: StateTree, _ slices: L2SliceCache) throws(QCOW2Error) -> ImageLayer {
        let map = try ClusterMap(
            tree, for: 0..<UInt64.max, in: header.geometry, fileByteCount: storage.byteCount()
        ) { (bytes, offset) throws(QCOW2Error) in try storage.read(into: &bytes, at: offset) }
        return ImageLayer(map, header, slices)
    }
}

extension L2SliceCache {
    /// Enough for 64 GiB of a disk with clusters of 64 KiB.
    static let defaultByteCount = 8 << 20

    convenience init(in geometry: ImageGeometry, byteCount: Int) {
        self.init(byteCount: byteCount, sliceByteCount: min(geometry.clusterByteCount, ClusterMap.sliceByteCount))
    }
}
