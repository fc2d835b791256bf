// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing

@testable import QCOW2

/// One hot loop over metadata that is in memory, with the library's own code.
struct Kernel {
    let name: String
    /// Bytes of metadata that one call reads or makes.
    let byteCount: Int
    /// Entries of an L2 table, or refcounts, in them.
    let itemCount: Int
    /// Makes what the loop works on, which takes longer than the loop, and returns one call of it; each call leaves
    /// everything as it was, so that any number can follow.
    let prepare: () -> Body

    typealias Body = () throws -> Void

    /// 64 KiB clusters, as most images have.
    private static func geometry(order: Int = 4, extended: Bool = false) -> ImageGeometry {
        ImageGeometry(clusterBits: 16, refcountOrder: order, hasExtendedL2: extended, hasZeroFlag: !extended)
    }

    static func all() -> [Kernel] {
        copies() + tables() + flags() + counts() + (0...6).flatMap(refcounts)
    }

    /// What no loop over as many bytes can beat.
    private static func copies() -> [Kernel] {
        [("copy 64 KiB, in the cache", 1 << 16), ("copy 64 MiB, in memory", 1 << 26)].map { name, byteCount in
            Kernel(name: name, byteCount: byteCount, itemCount: byteCount / 8) {
                let source = [UInt8](repeating: 1, count: byteCount)
                var target = [UInt8](repeating: 0, count: byteCount)
                return {
                    target.withUnsafeMutableBytes { target in source.withUnsafeBytes { target.copyMemory(from: $0) } }
                }
            }
        }
    }

    /// Decoding an L2 table into runs, and counting those in a window of 1 TiB of clusters.
    private static func tables() -> [Kernel] {
        var generator = SplitMix64(seed: 7)
        let windowClusterCount: UInt64 = 1 << 24
        let cases: [(String, Bool, (UInt64) -> UInt64)] = [
            ("L2 table, in order", false, { 100_000 + $0 }),
            ("L2 table, runs of 8", false, { 100_000 + ($0 / 8) * 16 + $0 % 8 }),
            ("L2 table, scattered", false, { _ in generator.next() % windowClusterCount }),
            ("L2 table, empty", false, { _ in 0 }),
            ("L2 table, extended, in order", true, { 100_000 + $0 }),
        ]
        return cases.map { name, extended, cluster in
            let geometry = geometry(extended: extended)
            return Kernel(name: name, byteCount: geometry.clusterByteCount, itemCount: geometry.l2EntryCount) {
                var window = CountWindow<UInt16>(capacity: Int(windowClusterCount))
                window.reset(to: 0..<windowClusterCount)
                let scan = L2TableScan(geometry: geometry, fileByteCount: windowClusterCount << 16)
                let table = table(geometry, cluster)
                return {
                    // A weight of nothing: the same work, and the counts stay.
                    _ = try window.addTable(table.span, at: HostOffset(1 << 16), 0, scan)
                }
            }
        }
    }

    private static func table(_ geometry: ImageGeometry, _ cluster: (UInt64) -> UInt64) -> [UInt8] {
        var table = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = table.mutableSpan
        for index in 0..<geometry.l2EntryCount {
            let cluster = cluster(UInt64(index))
            guard cluster != 0 else { continue }
            span.storeBigEndian(cluster << 16 | 1 << 63, at: index * geometry.l2EntryByteCount)
            // All subclusters allocated.
            if geometry.hasExtendedL2 { span.storeBigEndian(UInt64(UInt32.max), at: index * 16 + 8) }
        }
        return table
    }

    private static func flags() -> [Kernel] {
        let geometry = geometry()
        let scan = L2TableScan(geometry: geometry, fileByteCount: 1 << 40)
        var bits = CopiedFlags.BitSet(count: geometry.l2EntryCount)
        for index in stride(from: 0, to: geometry.l2EntryCount, by: 3) { bits.set(index) }
        let cases = [("all clear", CopiedFlags.allClear), ("all set", .allSet), ("mixed", .mixed(bits))]
        return cases.map { name, flags in
            Kernel(
                name: "copied flags, \(name)", byteCount: geometry.clusterByteCount, itemCount: geometry.l2EntryCount
            ) {
                var table = table(geometry) { 100_000 + $0 }
                return {
                    var span = table.mutableSpan
                    scan.apply(flags, to: &span)
                }
            }
        }
    }

    /// Comparing a piece of refcounts with the references to them, and changing it.
    private static func counts() -> [Kernel] {
        let count = RefcountReader.pieceCount
        /// References to all clusters alike, or to every other one by another tree.
        func window(mixed: Bool = false) -> CountWindow<UInt16> {
            var window = CountWindow<UInt16>(capacity: count)
            window.reset(to: 0..<UInt64(count))
            window.add(ClusterRun(first: 0, count: UInt64(count)), CountWindow<UInt16>.weight(old: 1, new: 1) ?? 0)
            for cluster in stride(from: 1, to: UInt64(count), by: 2) where mixed {
                window.add(ClusterRun(first: cluster, count: 1), CountWindow<UInt16>.weight(old: 0, new: 1) ?? 0)
            }
            return window
        }
        let stored = [UInt64](repeating: 1, count: count)
        // Of each cluster: its lane of two bytes.
        return [
            Kernel(name: "refcounts against references", byteCount: count * 2, itemCount: count) {
                var window = window()
                return {
                    let piece = window.settle(stored, count: count, from: 0, maximumRefcount: 65535)
                    guard !piece.isBad else { throw QCOW2Error(.corrupt, "The benchmark is wrong.") }
                }
            },
            Kernel(name: "refcounts against mixed references", byteCount: count * 2, itemCount: count) {
                var window = window(mixed: true)
                return {
                    let piece = window.settle(stored, count: count, from: 0, maximumRefcount: 65535)
                    guard !piece.isBad else { throw QCOW2Error(.corrupt, "The benchmark is wrong.") }
                }
            },
            Kernel(name: "changes onto refcounts", byteCount: count * 2, itemCount: count) {
                var (window, changed) = (window(), stored)
                return {
                    window.applyChanges(to: &changed, count: count, from: 0)
                    window.reset(to: 0..<0)
                    window.reset(to: 0..<UInt64(count))
                }
            },
        ]
    }

    /// Decoding and encoding refcounts of `1 << order` bits, a piece of them.
    private static func refcounts(_ order: Int) -> [Kernel] {
        let count = RefcountReader.pieceCount
        let byteCount = (count << order) / 8
        let source = [UInt8](repeating: 0x11, count: byteCount)
        let sourceValues = [UInt64](repeating: 1, count: count)
        return [
            Kernel(name: "refcounts of \(1 << order) bits, decode", byteCount: byteCount, itemCount: count) {
                var values = sourceValues
                return { RefcountBlock.decode(source.span, order: order, count: count, into: &values) }
            },
            Kernel(name: "refcounts of \(1 << order) bits, encode", byteCount: byteCount, itemCount: count) {
                var bytes = source
                return {
                    var span = bytes.mutableSpan
                    RefcountBlock.encode(sourceValues, order: order, count: count, into: &span)
                }
            },
        ]
    }
}
