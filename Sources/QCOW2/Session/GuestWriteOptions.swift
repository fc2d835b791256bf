// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// How guest writes go about it.
public struct GuestWriteOptions: Sendable {
    /// Reads the backing file's disk: what it holds from an offset on, with zeros past its end.
    public typealias BackingReader =
        @Sendable (_ offset: GuestOffset, _ byteCount: Int) throws(QCOW2Error) -> [UInt8]

    /// What to do with bitmaps, which guest writes make wrong.
    public var bitmaps = BitmapPolicy.refuse
    /// Reads the backing file, if the caller allows that; this library never opens it by itself for a write.
    ///
    /// Needed to write a part of a cluster (a subcluster with extended L2 entries) that is in the backing file.
    public var backingReader: BackingReader?
    /// About how many bytes of tables and refcounts to keep in memory; when more have changed, they are committed.
    public var cacheBudget = 32 << 20
    /// About how many bytes of memory to count references in, before the first write.
    public var memoryBudget = 72 << 20
    /// Whether the space of freed data clusters is given back to the file system after each commit.
    public var discardsFreedClusters = true

    /// The defaults: an image with bitmaps is refused, and nobody reads the backing file.
    public init() {}
}
