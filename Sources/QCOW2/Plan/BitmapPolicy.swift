// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What happens to an image's bitmaps when the disk's content changes at once.
public enum BitmapPolicy: Hashable, Sendable {
    /// The operation is refused when the image holds bitmaps.
    case refuse
    /// The bitmaps are given up: their feature bit is cleared and their clusters are freed, in the same commit.
    case drop
}

extension QCOW2Error {
    static func activeBitmaps(_ name: String, _ verb: String) -> Self {
        Self(
            .activeBitmaps,
            "'\(name)' holds bitmaps that would no longer match the disk; \(verb) only after removing them, or force "
                + "it to give them up.")
    }
}
