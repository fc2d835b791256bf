// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which table each metadata cluster belongs to; to the first one, where tables overlap.
struct TableClaims: Sendable {
    private let tables: [MetadataTables.Table]
    private let singles: SingleClusters
    /// In the order of the file, without overlaps.
    private var claims: [(run: ClusterRun, table: Int)] = []
    /// Whether the active L1 table is also a snapshot's.
    private(set) var sharesActiveL1 = false

    /// Notes which tables overlap.
    ///
    /// Invariants I-8, I-9 and I-26. Costs O(n log n) for n tables.
    init(_ subject: ImageReading, _ sink: FindingSink) {
        tables = subject.tables
        singles = subject.singles
        let order = tables.indices.sorted { left, right in
            let (left, right) = (tables[left].run, tables[right].run)
            return (left.first, left.count) < (right.first, right.count)
        }
        // The table among the earlier ones that reaches furthest.
        var widest: Int?
        for index in order {
            var run = tables[index].run
            if let widest, tables[widest].run.end > run.first {
                report(tables[index], tables[widest], subject.geometry, sink)
                let end = tables[widest].run.end
                guard run.end > end else { continue }
                run = ClusterRun(first: end, count: run.end - end)
            }
            widest = index
            claims.append((run, index))
        }
        reportSingles(subject.geometry, sink)
    }

    /// Notes which refcount blocks and bitmap data lie in another table, or in each other.
    private mutating func reportSingles(_ geometry: ImageGeometry, _ sink: FindingSink) {
        for (kind, clusters) in [
            (MetadataTables.Table.Kind.refcountBlock, singles.refcountBlocks), (.bitmapData, singles.bitmapData),
        ] {
            var last: UInt64?
            for cluster in clusters {
                let run = ClusterRun(first: cluster, count: 1)
                let table = MetadataTables.Table(kind: kind, run: run)
                if last == cluster { report(table, table, geometry, sink) }
                last = cluster
                if let owner = largeOwner(of: run) { report(table, owner, geometry, sink) }
                if kind == .bitmapData, singles.refcountBlocks.contains(oneOf: run) {
                    report(table, MetadataTables.Table(kind: .refcountBlock, run: run), geometry, sink)
                }
            }
        }
    }

    private mutating func report(
        _ table: MetadataTables.Table, _ other: MetadataTables.Table, _ geometry: ImageGeometry, _ sink: FindingSink
    ) {
        let kinds = [table.kind, other.kind]
        let rule: FindingRule
        if kinds.allSatisfy({ $0 == .activeL1 || $0 == .snapshotL1 }) {
            rule = kinds.contains(.activeL1) ? .activeL1Shared : .snapshotL1Shared
            if rule == .activeL1Shared { sharesActiveL1 = true }
        } else {
            rule = .tablesOverlap
        }
        sink.add(
            rule, at: geometry.offset(ofCluster: max(table.run.first, other.run.first)), in: table.name,
            "The \(table.name) overlaps the \(other.name).")
    }

    /// The table that one of a run's clusters belongs to, if any does.
    func owner(of run: ClusterRun) -> MetadataTables.Table? {
        if let owner = largeOwner(of: run) { return owner }
        if let cluster = singles.refcountBlocks.clusters(in: run.first..<run.end).first {
            return MetadataTables.Table(kind: .refcountBlock, run: ClusterRun(first: cluster, count: 1))
        }
        if let cluster = singles.bitmapData.clusters(in: run.first..<run.end).first {
            return MetadataTables.Table(kind: .bitmapData, run: ClusterRun(first: cluster, count: 1))
        }
        return nil
    }

    private func largeOwner(of run: ClusterRun) -> MetadataTables.Table? {
        var (low, high) = (0, claims.count)
        while low < high {
            let middle = (low + high) / 2
            if claims[middle].run.end <= run.first { low = middle + 1 } else { high = middle }
        }
        guard low < claims.count, claims[low].run.first < run.end else { return nil }
        return tables[claims[low].table]
    }
}

extension [UInt64] {
    /// Whether one of these clusters, in ascending order, is in a run.
    fileprivate func contains(oneOf run: ClusterRun) -> Bool { !clusters(in: run.first..<run.end).isEmpty }
}
