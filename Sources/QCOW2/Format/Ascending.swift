// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension [ClusterRun] {
    /// Whether no run begins before the end of the one in front of it.
    var areAscendingAndDisjoint: Bool { indices.dropFirst().allSatisfy { self[$0 - 1].end <= self[$0].first } }
}

extension [UInt64] {
    /// Whether each number is larger than the one in front of it.
    var isAscending: Bool { indices.dropFirst().allSatisfy { self[$0 - 1] < self[$0] } }
}

extension [Range<UInt64>] {
    /// Whether no range is empty, or begins before the end of the one in front of it.
    var areAscendingAndDisjoint: Bool {
        allSatisfy { !$0.isEmpty } && indices.dropFirst().allSatisfy { self[$0 - 1].upperBound <= self[$0].lowerBound }
    }
}
