// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts every reference of an image before and after a proposed change, a window of clusters at a time.
///
/// Section "3.3 The multiplicity rule".
///
/// Checks on the way that the stored refcounts can be trusted, that nothing overlaps, and that no new refcount is too
/// large; finds the blocks that change, the clusters that are free, and the copied flags that change. Reads each
/// distinct L2 table once; again for a further window only if its runs were too many to remember and some lie there;
/// and once more if flags below it may differ from each other. Memory is bounded by the window, not by the image.
struct ReferenceCount<Lane: FixedWidthInteger & UnsignedInteger & Sendable> {
    let state: ImageState
    private(set) var l2Tables: L2Tables
    private(set) var window: CountWindow<Lane>
    private(set) var blocks: BlockSurvey
    private(set) var flags: FlagSurvey
    private var reader: L2TableReader
    /// Of the clusters that have to be looked at: those of the file, and those that a block describes.
    private let windows: ClusterWindows
    private let scan: L2TableScan

    private var geometry: ImageGeometry { state.geometry }

    init(_ state: ImageState, _ l2Tables: L2Tables, budget: Int) {
        self.state = state
        self.l2Tables = l2Tables
        let clusterCount = max(
            state.geometry.clusterCount(forBytes: state.fileByteCount), state.refcounts.describedClusterCount)
        windows = ClusterWindows(
            clusterCount: clusterCount, laneByteCount: Lane.bitWidth / 8, budget: budget)
        window = CountWindow(capacity: windows.capacity)
        blocks = BlockSurvey(state.refcounts)
        flags = FlagSurvey()
        reader = L2TableReader(state.geometry)
        scan = L2TableScan(geometry: state.geometry, fileByteCount: state.fileByteCount)
    }

    /// Counts.
    ///
    /// - Returns: Whether the lanes were wide enough; if not, count with wider ones.
    mutating func count<S: Storage & ~Copyable>(
        reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) -> Bool {
        try findPrivateTables(storage)
        work.expect(UInt64(l2Tables.count) * geometry.clusterSize)
        for index in 0..<windows.count {
            window.reset(to: windows.range(index))
            guard try countReferences(storage, &work, isFirst: index == 0) else { return false }
            try checkTables()
            try blocks.settle(&window, state, storage)
            try flags.survey(&l2Tables, window, scan, &reader, storage, &work)
        }
        flags.finish(l2Tables)
        return true
    }

    /// Gives the memory back, before wider lanes take its place.
    mutating func discard() { window = CountWindow(capacity: 0) }

    /// Finds which tables will have a refcount of one.
    private mutating func findPrivateTables<S: Storage & ~Copyable>(_ storage: borrowing S) throws(QCOW2Error) {
        // Small pieces: tables are often far from each other.
        var refcounts = RefcountReader(state.refcounts, pieceCount: 256)
        for index in 0..<l2Tables.count {
            let table = l2Tables[index]
            let stored = try refcounts.refcount(of: geometry.cluster(at: table.offset), from: storage)
            // A refcount that is too low is refused when all of them are compared, in the order of the file.
            let others = stored - min(stored, UInt64(table.oldWeight))
            l2Tables[index].isPrivate =
                others == 0 && table.newWeight == 1 || others == 1 && table.newWeight == 0
        }
    }

    /// Adds all references to the window.
    private mutating func countReferences<S: Storage & ~Copyable>(
        _ storage: borrowing S, _ work: inout WorkMeter, isFirst: Bool, onlyChanges: Bool = false
    ) throws(QCOW2Error) -> Bool {
        var window = CountWindow<Lane>(capacity: 0)
        swap(&window, &self.window)
        defer { swap(&window, &self.window) }
        for table in state.tables {
            guard let weight = CountWindow<Lane>.weight(old: 1, new: 1) else { return false }
            window.add(table.run, weight)
        }
        guard window.addKnown(l2Tables, geometry) else { return false }
        let range = window.range
        let scan = scan
        try reader.forEach(
            of: &l2Tables, from: storage, &work,
            where: { (table, _) in
                isFirst
                    || (table.runs == nil && table.targets.overlaps(range)
                        && !(onlyChanges && table.oldWeight == table.newWeight))
            }
        ) { (l2Tables, index, bytes) throws(QCOW2Error) in
            let table = l2Tables[index]
            // Checked for all tables above.
            let weight = CountWindow<Lane>.weight(old: table.oldWeight, new: table.newWeight) ?? 0
            let findings = try window.addTable(bytes, at: table.offset, weight, scan)
            if isFirst { l2Tables.note(findings, of: index) }
        }
        return !window.hasOverflowed
    }

    /// Checks that nothing but itself is in a table.
    ///
    /// Invariant I-9.
    private func checkTables() throws(QCOW2Error) {
        for table in state.tables {
            let covered = table.run.first..<table.run.end
            for cluster in covered.clamped(to: window.range) where window.old(cluster) != 1 {
                throw QCOW2Error(
                    .corrupt, "Something else refers to a cluster of the \(table.name).",
                    at: geometry.offset(ofCluster: cluster))
            }
        }
        for index in 0..<l2Tables.count {
            let table = l2Tables[index]
            let cluster = geometry.cluster(at: table.offset)
            guard window.covers(cluster), window.old(cluster) != UInt64(table.oldWeight) else { continue }
            throw QCOW2Error(.corrupt, "Something else refers to an L2 table.", at: table.offset)
        }
    }
}

/// How the references to clusters change, without what they were counted with.
protocol ReferenceChanges: Sendable {
    /// Adds the changes to the refcounts of a piece of clusters; counts again if the last window doesn't cover them.
    mutating func addChanges<S: Storage & ~Copyable>(
        to refcounts: inout [UInt64], of piece: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error)
}

extension ReferenceCount: ReferenceChanges {
    mutating func addChanges<S: Storage & ~Copyable>(
        to refcounts: inout [UInt64], of piece: Range<UInt64>, reading storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        // What lies behind the last window has no references that the file knows of.
        guard piece.lowerBound < windows.clusterCount else { return }
        if !window.covers(piece.lowerBound) {
            window.reset(to: windows.range(windows.index(of: piece.lowerBound)))
            _ = try countReferences(storage, &work, isFirst: false, onlyChanges: true)
        }
        let count = min(piece.upperBound, window.range.upperBound) - piece.lowerBound
        window.applyChanges(to: &refcounts, count: Int(count), from: piece.lowerBound)
    }
}
