// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2Testing
import Testing

@testable import QCOW2

@Suite struct ClusterAllocatorTests {
    @Test(
        "Clusters are handed out once, and again only when they were taken back",
        arguments: 1...30 as ClosedRange<UInt64>)
    func model(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let image = try Image.create(NewImage(virtualSize: 1 << 20), in: InMemoryStorage([]))
        let state = try ImageState(image.opened, reading: image.storage)
        let blocks = try BlockSurvey.verified(state, reading: image.storage, budget: 1 << 20)
        var allocator = ClusterAllocator(blocks, in: state.geometry)
        var taken = Set<UInt64>(0..<4)
        for _ in 0..<200 {
            if Bool.random(using: &random) {
                let run = try allocator.allocate(.random(in: 1...20, using: &random))
                for cluster in run.first..<run.end {
                    let isNew = taken.insert(cluster).inserted
                    #expect(isNew, "seed \(seed): cluster \(cluster)")
                }
            } else {
                // Some, or so many that they are merged at once.
                let share = Int.random(in: 1...4, using: &random)
                var runs: [ClusterRun] = []
                for cluster in taken.sorted() where cluster > 3 && Int.random(in: 0..<share, using: &random) == 0 {
                    taken.remove(cluster)
                    if let last = runs.last, last.end == cluster {
                        runs[runs.count - 1].count += 1
                    } else {
                        runs.append(ClusterRun(first: cluster, count: 1))
                    }
                }
                allocator.free(runs)
            }
        }
        // The lowest free ones come first: nothing was forgotten.
        for _ in 0..<50 {
            let free = (UInt64(4)...).first { !taken.contains($0) }
            let run = try allocator.allocate(1)
            #expect(run.first == free, "seed \(seed)")
            taken.insert(run.first)
        }
    }
}
