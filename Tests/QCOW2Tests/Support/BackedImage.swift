// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// Images with clusters of 512 bytes that name a backing file, as anybody could write them.
enum BackedImage {
    static let unit = 512
    static let clusterCount = 24

    /// An image whose first clusters hold their number plus `mark`; all else is left to the backing file.
    static func bytes(
        named name: String?, format: String?, dataClusterCount: Int = 2, mark: UInt8 = 0x40, size: Int? = nil
    ) -> [UInt8] {
        var builder = ImageBuilder(size: UInt64(size ?? clusterCount * unit))
        builder.fill(dataClusterCount)
        var image = builder.finished()
        // ImageBuilder numbers the clusters in their first eight bytes.
        for cluster in stride(from: 0, to: image.bytes.count, by: unit)
        where (1...UInt64(max(1, dataClusterCount))).contains(image.number(at: cluster)) {
            image.set([UInt8](repeating: mark + UInt8(image.number(at: cluster)), count: unit), at: cluster)
        }
        if let format { image.setExtensions([(0xE279_2ACA, Array(format.utf8))], at: 112) }
        if let name {
            image.set(200, at: 8)
            image.set(UInt64(name.utf8.count), 4, at: 16)
            image.set(Array(name.utf8), at: 200)
        }
        return image.bytes
    }

    /// What such an image reads as above `below`, which is cut or filled up to its size.
    static func content(dataClusterCount: Int = 2, mark: UInt8 = 0x40, above below: [UInt8]) -> [UInt8] {
        let data = (0..<dataClusterCount).flatMap { [UInt8](repeating: mark + UInt8($0 + 1), count: unit) }
        let rest = below.prefix(clusterCount * unit).dropFirst(data.count)
        return data + rest + [UInt8](repeating: 0, count: clusterCount * unit - data.count - rest.count)
    }
}

extension TemporaryFolder {
    /// Writes a file, and returns its path.
    @discardableResult
    func write(_ bytes: [UInt8], to name: String) throws -> String {
        let path = file(name)
        let directory = URL(fileURLWithPath: path).deletingLastPathComponent()
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }
}
