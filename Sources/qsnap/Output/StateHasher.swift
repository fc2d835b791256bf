// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// SHA-256 of several states at once: as long as states have been the same from their start, they share the work.
struct StateHasher {
    private var hashes: [SHA256]
    /// How many states a hash belongs to.
    private var counts: [Int]
    /// Which hash a state has.
    private var owners: [Int]

    init(count: Int) {
        hashes = [SHA256()]
        counts = [count]
        owners = [Int](repeating: 0, count: count)
    }

    /// Adds a range that some states share; no bytes stand for zeros.
    mutating func update(_ states: [Int], _ bytes: Span<UInt8>, _ range: Range<GuestOffset>) throws(QCOW2Error) {
        for (owner, members) in Dictionary(grouping: states, by: { owners[$0] }) {
            var target = owner
            if counts[owner] > members.count {
                // Others part from them here.
                target = hashes.count
                hashes.append(hashes[owner].copy())
                counts[owner] -= members.count
                counts.append(members.count)
                for state in members { owners[state] = target }
            }
            if bytes.isEmpty {
                hashes[target].update(zeroCount: range.upperBound.rawValue - range.lowerBound.rawValue)
            } else {
                hashes[target].update(bytes)
            }
        }
    }

    /// The hashes in hexadecimal, one for each state.
    func finish() -> [String] {
        let texts = hashes.map { $0.finish() }
        return owners.map { texts[$0] }
    }
}
