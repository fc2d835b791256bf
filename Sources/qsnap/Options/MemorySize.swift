// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser

/// An amount of memory, given as a number with a unit.
struct MemorySize {
    let byteCount: Int

    /// Reads text such as `64M`: a number and K, M or G, from 1M on, below which nothing gets smaller.
    init(parsing text: String) throws {
        let shifts: [Character: Int] = ["K": 10, "M": 20, "G": 30]
        guard let shift = text.last.flatMap({ shifts[$0] }), let number = Int(text.dropLast()), number > 0 else {
            throw ValidationError("'\(text)' is no amount of memory; write a number and K, M or G, such as 64M.")
        }
        guard number <= Int.max >> shift else { throw ValidationError("'\(text)' is too large.") }
        guard number << shift >= 1 << 20 else { throw ValidationError("'\(text)' is too small; the least is 1M.") }
        byteCount = number << shift
    }
}
