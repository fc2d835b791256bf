// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which L2 tables of the proposed active tree need other copied flags, and which.
///
/// Section "3.4 COPIED".
///
/// A table that a snapshot reaches, too, must have none: all below it has a refcount of two at least. In one that is
/// the active tree's own, an entry has the flag if the new refcount of its cluster is one: mostly all or none are,
/// which needs no look at the entries. What counts is the refcount that will be stored, leaks included, because that
/// is what every checker compares a flag with.
struct FlagSurvey: Sendable {
    /// The tables that change, with their flags; in file order.
    private(set) var changes: [(table: Int, flags: CopiedFlags)] = []
    /// By the table's index, whether its refcount will be one as long as it stays where it is.
    private(set) var isPrivate: [Bool]
    private let state: ImageState
    /// Tables of the active tree's own that were seen in some window.
    private var open: [Int: Finding] = [:]

    /// What is known about the clusters below a table so far.
    private enum Finding {
        /// Every new refcount is one, or none is.
        case uniform(isOne: Bool)
        case mixed(CopiedFlags.BitSet, differs: Bool)
    }

    init(_ state: ImageState, _ tables: L2Tables) {
        self.state = state
        isPrivate = [Bool](repeating: false, count: tables.count)
    }

    /// Finds which tables will have a refcount of one.
    mutating func findRefcounts<S: Storage & ~Copyable>(
        of tables: L2Tables, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        // Small pieces: tables are often far from each other.
        var refcounts = RefcountReader(state.refcounts, pieceCount: 256)
        for index in 0..<tables.count {
            if index % 4096 == 0 { try work.checkForWish() }
            let table = tables[index]
            let stored = try refcounts.refcount(of: state.geometry.cluster(at: table.offset), from: storage)
            // A refcount that is too low is refused when all of them are compared, in the order of the file.
            let others = stored - min(stored, UInt64(table.oldWeight))
            isPrivate[index] = others == 0 && table.newWeight == 1 || others == 1 && table.newWeight == 0
        }
    }

    /// Whether all entries that point to a table are one, of the active tree.
    private static func isOwn(_ table: L2Table) -> Bool { table.isActive && table.newWeight == 1 }

    /// Looks at the clusters of a settled window.
    mutating func survey<Lane, S: Storage & ~Copyable>(
        _ sweep: inout ReferenceSweep, _ window: CountWindow<Lane>, _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var open: [Int: Finding] = [:]
        swap(&open, &self.open)
        defer { swap(&open, &self.open) }
        // Tables that needn't be read.
        var isDone = [Bool](repeating: false, count: sweep.tables.count)
        for index in 0..<sweep.tables.count {
            guard Self.isOwn(sweep.tables[index]), sweep.contents[index].targets.overlaps(window.range) else {
                isDone[index] = true
                continue
            }
            guard let runs = sweep.contents.keptRuns(of: index) else { continue }
            var (all, none) = (true, true)
            for run in runs {
                let part = window.areOne(run)
                all = all && part.all
                none = none && part.none
            }
            // Both: the table has nothing in this window.
            guard all != none else {
                isDone[index] = all
                continue
            }
            switch open[index] {
            case nil: open[index] = .uniform(isOne: all)
            case .uniform(let isOne) where isOne == all: break
            case .uniform, .mixed: continue
            }
            isDone[index] = true
        }
        let scan = sweep.scan
        try sweep.forEachTable(
            near: window.range, reading: storage, &work, where: { !isDone[$0] }
        ) { (index, bytes) throws(QCOW2Error) in
            open[index] = Self.merge(open[index], bytes, window, scan)
        }
    }

    /// Adds what a table's entries say to what is known from earlier windows.
    @specialized(where Lane == UInt16)
    @specialized(where Lane == UInt32)
    @specialized(where Lane == UInt64)
    private static func merge<Lane>(
        _ known: Finding?, _ bytes: Span<UInt8>, _ window: CountWindow<Lane>, _ scan: L2TableScan
    ) -> Finding {
        var bits = CopiedFlags.BitSet(count: scan.geometry.l2EntryCount)
        var differs = false
        var earlier: Bool?
        switch known {
        case nil: break
        case .uniform(let isOne): earlier = isOne
        case .mixed(let known, let knownDiffers): (bits, differs) = (known, knownDiffers)
        }
        scan.forEachFlag(in: bytes) { index, cluster, isCopied in
            let isOne: Bool
            if window.covers(cluster) {
                isOne = window.isOne(cluster)
            } else if let earlier, cluster < window.range.lowerBound {
                isOne = earlier
            } else {
                return
            }
            if isOne { bits.set(index) }
            differs = differs || isOne != isCopied
        }
        return .mixed(bits, differs: differs)
    }

    /// Decides, once all windows have been looked at.
    mutating func finish(_ sweep: ReferenceSweep) {
        for index in 0..<sweep.tables.count where sweep.tables[index].isActive {
            let flags = sweep.contents[index].flags
            if !Self.isOwn(sweep.tables[index]) {
                if flags.isAnySet { changes.append((index, .allClear)) }
                continue
            }
            switch open[index] {
            case .uniform(isOne: true): if flags.isAnyClear { changes.append((index, .allSet)) }
            case .uniform(isOne: false): if flags.isAnySet { changes.append((index, .allClear)) }
            case .mixed(let bits, differs: true): changes.append((index, .mixed(bits)))
            case .mixed, nil: break
            }
        }
        open = [:]
    }
}
