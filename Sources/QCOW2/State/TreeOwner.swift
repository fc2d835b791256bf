// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Which of an image's trees reach something: none, one alone, or several.
///
/// A number small enough for a lane per cluster, whatever the number of trees.
struct TreeOwner: RawRepresentable, Hashable, Sendable {
    let rawValue: UInt32

    /// Nothing that is known reaches it.
    static let none = TreeOwner(rawValue: 0)
    static let several = TreeOwner(rawValue: 1)
    /// A table that doesn't lie below a tree.
    static let image = TreeOwner(rawValue: 2)

    /// How many numbers are no tree's.
    static let treeBase = 3

    init(rawValue: UInt32) { self.rawValue = rawValue }

    /// One tree alone; there are at most 65,537.
    init(tree: Int) { rawValue = UInt32(truncatingIfNeeded: tree &+ Self.treeBase) }

    /// Who reaches what `self` reaches and `other` does, too.
    func joined(with other: TreeOwner) -> TreeOwner {
        self == .none || self == other ? other : other == .none ? self : .several
    }
}
