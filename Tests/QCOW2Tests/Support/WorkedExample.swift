// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

/// The images of section "8 Worked example", built from its listing.
enum WorkedExample: String, CaseIterable, CustomTestStringConvertible {
    /// Fresh; written; after creating, writing, applying, deleting.
    case a, b, c, d, e, f

    var testDescription: String { "state \(rawValue.uppercased())" }

    var image: ImageBytes {
        switch self {
        case .a: Self.fresh
        case .b: Self.written
        case .c: Self.created
        case .d: Self.writtenAgain
        case .e: Self.applied
        case .f: Self.deleted
        }
    }

    var bytes: [UInt8] { image.bytes }

    private static func refcounts(_ counts: [UInt64], in image: inout ImageBytes) {
        for (cluster, count) in counts.enumerated() { image.set(count, 2, at: 0x400 + cluster * 2) }
    }

    private static let fresh: ImageBytes = {
        var image = ImageBytes()
        image.set([0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3], at: 0x00)
        image.set([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0x20, 0], at: 0x10)
        image.set([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x06, 0], at: 0x20)
        image.set([0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 1, 0, 0, 0, 0], at: 0x30)
        image.set([0, 0, 0, 4, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0, 0, 0], at: 0x60)
        image.set(0x400, at: 0x200)
        refcounts([1, 1, 1, 1], in: &image)
        image.set(0, at: 0x600)
        return image
    }()

    private static let written: ImageBytes = {
        var image = fresh
        refcounts([1, 1, 1, 1, 1, 1], in: &image)
        image.set(0x8000_0000_0000_0800, at: 0x600)
        image.set(0x8000_0000_0000_0A00, at: 0x800)
        image.set([UInt8](repeating: 0x11, count: 512), at: 0xA00)
        return image
    }()

    private static let created: ImageBytes = {
        var image = written
        image.set([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x0E, 0], at: 0x3C)
        refcounts([1, 1, 1, 1, 2, 2, 1, 1], in: &image)
        image.set(0x800, at: 0x600)
        image.set(0xA00, at: 0x800)
        image.set(0x8000_0000_0000_0800, at: 0xC00)
        image.set(0xC00, at: 0xE00)
        image.set([0, 0, 0, 1, 0, 1, 0, 2], at: 0xE08)
        image.set([0x6B, 0x03, 0xBD, 0xF9, 0x22, 0x70, 0x77, 0xA0], at: 0xE10)
        image.set([0, 0, 0, 0, 0, 0, 0, 0x18], at: 0xE20)
        image.set(8192, at: 0xE30)
        image.set(0, at: 0xE38)
        image.set([0x31, 0x73, 0x31], at: 0xE40)
        return image
    }()

    private static let writtenAgain: ImageBytes = {
        var image = created
        refcounts([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], in: &image)
        image.set(0x8000_0000_0000_1000, at: 0x600)
        image.set(0x8000_0000_0000_1200, at: 0x1000)
        image.set([UInt8](repeating: 0x22, count: 512), at: 0x1200)
        return image
    }()

    private static let applied: ImageBytes = {
        var image = writtenAgain
        refcounts([1, 1, 1, 1, 2, 2, 1, 1, 0, 0], in: &image)
        image.set(0x800, at: 0x600)
        image.set(0x800, at: 0xC00)
        image.set([UInt8](repeating: 0, count: 1024), at: 0x1000)
        return image
    }()

    private static let deleted: ImageBytes = {
        var image = applied
        image.set([UInt8](repeating: 0, count: 12), at: 0x3C)
        refcounts([1, 1, 1, 1, 1, 1, 0, 0], in: &image)
        image.set(0x8000_0000_0000_0800, at: 0x600)
        image.set(0x8000_0000_0000_0A00, at: 0x800)
        return image
    }()
}
