// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Decompresses clusters to see whether it can be done.
///
/// Invariant I-30.
struct CompressedChecker {
    private let subject: ImageReading

    init(_ subject: ImageReading) { self.subject = subject }

    /// Decompresses clusters.
    ///
    /// - Returns: How many.
    func decode<S: Storage & ~Copyable>(
        _ clusters: [(cluster: CompressedCluster, place: HostOffset)], from storage: borrowing S, _ sink: FindingSink,
        _ work: inout WorkMeter
    ) throws(QCOW2Error) -> UInt64 {
        var output = [UInt8](repeating: 0, count: subject.geometry.clusterByteCount)
        var count: UInt64 = 0
        for (cluster, place) in clusters where cluster.offset.rawValue < subject.bounds.byteCount {
            if count % 64 == 0 { try work.checkForWish() }
            let input = try storage.readBytes(Int(cluster.byteCount), at: cluster.offset)
            count += 1
            do throws(QCOW2Error) {
                var span = output.mutableSpan
                try ClusterCodec.decompress(
                    input.span, subject.header.compressionType ?? .deflate, into: &span, at: cluster.offset)
            } catch  where error.code == .corrupt {
                sink.add(
                    .compressedDataInvalid, at: place, in: "L2 table",
                    "The compressed bytes at \(cluster.offset) don't decode to a whole cluster.")
            }
        }
        return count
    }
}
