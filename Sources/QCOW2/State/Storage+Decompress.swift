// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension Storage where Self: ~Copyable {
    /// Reads and decompresses a cluster.
    func decompress(
        _ compressed: CompressedCluster, _ type: CompressionType, _ geometry: ImageGeometry
    ) throws(QCOW2Error) -> [UInt8] {
        // Safe: the descriptor's bits allow at most two clusters.
        let input = try readBytes(Int(compressed.byteCount), at: compressed.offset)
        var cluster = [UInt8](repeating: 0, count: geometry.clusterByteCount)
        var span = cluster.mutableSpan
        try ClusterCodec.decompress(input.span, type, into: &span, at: compressed.offset)
        return cluster
    }
}
