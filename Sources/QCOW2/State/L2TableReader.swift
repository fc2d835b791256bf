// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Reads many L2 tables in the order of the file, neighbours in one read.
struct L2TableReader: Sendable {
    /// The most bytes of one read, unless a table is larger.
    private static let batchByteCount = 1 << 20
    /// How many bytes of scattered tables are asked for ahead: without, a disk would have one read at a time to do.
    private static let aheadByteCount = 4 << 20

    private let clusterByteCount: Int
    private let batchCount: Int
    private var buffer: [UInt8]

    init(_ geometry: ImageGeometry) {
        clusterByteCount = geometry.clusterByteCount
        batchCount = max(1, Self.batchByteCount / geometry.clusterByteCount)
        buffer = []
    }

    /// Calls `body` with the bytes of every table that `isWanted`.
    mutating func forEach<S: Storage & ~Copyable>(
        of tables: L2Tables, from storage: borrowing S, _ work: inout WorkMeter, where isWanted: (_ index: Int) -> Bool,
        _ body: (_ index: Int, _ bytes: Span<UInt8>) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        if buffer.isEmpty { buffer = [UInt8](repeating: 0, count: batchCount * clusterByteCount) }
        let aheadCount = max(2, Self.aheadByteCount / clusterByteCount)
        var next = 0
        var hinted = 0
        while next < tables.count {
            guard isWanted(next) else {
                next += 1
                continue
            }
            let first = next
            hinted = max(hinted, first)
            while hinted < min(tables.count, first + aheadCount) {
                // Neighbours are read at once, and the operating system reads ahead by itself.
                let isNeighbour =
                    hinted > 0
                    && tables[hinted].offset.rawValue == tables[hinted - 1].offset.rawValue + UInt64(clusterByteCount)
                if !isNeighbour, isWanted(hinted) {
                    storage.willRead(clusterByteCount, at: tables[hinted].offset)
                }
                hinted += 1
            }
            next += 1
            while next < tables.count, next - first < batchCount, isWanted(next),
                tables[next].offset.rawValue == tables[next - 1].offset.rawValue + UInt64(clusterByteCount)
            { next += 1 }
            let byteCount = (next - first) * clusterByteCount
            let offset = tables[first].offset
            try buffer.withMutableSpan(of: 0..<byteCount) { (bytes) throws(QCOW2Error) in
                try storage.read(into: &bytes, at: offset)
            }
            for index in first..<next {
                let start = (index - first) * clusterByteCount
                let bytes = buffer.span
                try body(index, bytes.extracting(start..<(start + clusterByteCount)))
            }
            try work.advance(by: UInt64(byteCount))
        }
    }
}
