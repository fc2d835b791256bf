// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which L2 tables of the proposed active tree need other copied flags, and which.
///
/// Section "3.4 COPIED".
///
/// A table that a snapshot reaches, too, must have none. In one that is the active tree's own, an entry has the flag
/// if the new refcount of its cluster is one: mostly all or none are, which needs no look at the entries.
struct FlagSurvey: Sendable {
    /// The tables that change, with their flags; in file order.
    private(set) var changes: [(table: Int, flags: CopiedFlags)] = []
    /// Tables of the active tree's own that were seen in some window.
    private var open: [Int: Finding] = [:]

    /// What is known about the clusters below a table so far.
    private enum Finding {
        /// Every new refcount is one, or none is.
        case uniform(isOne: Bool)
        case mixed(CopiedFlags.BitSet, differs: Bool)
    }

    /// Looks at the clusters of a settled window.
    mutating func survey<Lane, S: Storage & ~Copyable>(
        _ tables: inout L2Tables, _ window: CountWindow<Lane>, _ scan: L2TableScan, _ reader: inout L2TableReader,
        _ storage: borrowing S, _ work: inout WorkMeter
    ) throws(QCOW2Error) {
        var open: [Int: Finding] = [:]
        swap(&open, &self.open)
        defer { swap(&open, &self.open) }
        // Tables that needn't be read.
        var isDone = [Bool](repeating: false, count: tables.count)
        for index in 0..<tables.count {
            let table = tables[index]
            guard table.isActive, table.isPrivate, table.targets.overlaps(window.range) else {
                isDone[index] = true
                continue
            }
            guard let runs = tables.keptRuns(of: table) else { continue }
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
        try reader.forEach(
            of: &tables, from: storage, &work, where: { (_, index) in !isDone[index] }
        ) { (_, index, bytes) throws(QCOW2Error) in
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
    mutating func finish(_ tables: L2Tables) {
        for index in 0..<tables.count where tables[index].isActive {
            let table = tables[index]
            if !table.isPrivate {
                if table.flags.isAnySet { changes.append((index, .allClear)) }
                continue
            }
            switch open[index] {
            case .uniform(isOne: true): if table.flags.isAnyClear { changes.append((index, .allSet)) }
            case .uniform(isOne: false): if table.flags.isAnySet { changes.append((index, .allClear)) }
            case .mixed(let bits, differs: true): changes.append((index, .mixed(bits)))
            case .mixed, nil: break
            }
        }
        open = [:]
    }
}
