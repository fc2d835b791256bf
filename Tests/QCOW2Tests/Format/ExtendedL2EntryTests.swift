// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Testing

@testable import QCOW2

/// Section "2.4 Extended L2 entry".
@Suite struct ExtendedL2EntryTests {
    private static let geometry = ImageGeometry.of(clusterBits: 14, extended: true)
    private static let allocated = L2Entry(rawValue: 0x14000)
    private static let unallocated = L2Entry(rawValue: 0)
    private static let compressed = L2Entry(rawValue: 0x4000_0000_0002_4000)

    @Test("Bit x allocates subcluster x, bit 32+x makes it zeros", arguments: 0..<32)
    func mapping(_ index: Int) {
        let (alloc, zero) = (UInt64(1) << UInt64(index), UInt64(1) << UInt64(index + 32))
        for other in 0..<32 {
            let isOwn = other == index
            #expect(
                SubclusterBitmap(rawValue: alloc).mapping(ofSubcluster: other) == (isOwn ? .allocated : .unallocated))
            #expect(SubclusterBitmap(rawValue: zero).mapping(ofSubcluster: other) == (isOwn ? .zero : .unallocated))
        }
        #expect(SubclusterBitmap(rawValue: 0).mapping(ofSubcluster: index) == .unallocated)
        // The invalid rows of the table.
        #expect(SubclusterBitmap(rawValue: alloc | zero).defect(beside: Self.allocated) != nil)
        #expect(SubclusterBitmap(rawValue: alloc | zero).defect(beside: Self.unallocated) != nil)
        #expect(SubclusterBitmap(rawValue: alloc).defect(beside: Self.unallocated) != nil)
        // The valid ones.
        #expect(SubclusterBitmap(rawValue: alloc).defect(beside: Self.allocated) == nil)
        for entry in [Self.allocated, Self.unallocated] {
            #expect(SubclusterBitmap(rawValue: zero).defect(beside: entry) == nil)
            #expect(SubclusterBitmap(rawValue: 0).defect(beside: entry) == nil)
        }
        // Compressed clusters have no subclusters.
        #expect(SubclusterBitmap(rawValue: alloc).defect(beside: Self.compressed) != nil)
        #expect(SubclusterBitmap(rawValue: zero).defect(beside: Self.compressed) != nil)
    }

    @Test("A compressed entry's bitmap is zero")
    func compressedEntry() {
        #expect(SubclusterBitmap(rawValue: 0).defect(beside: Self.compressed) == nil)
    }

    @Test("Neighbours may differ, down to every second subcluster")
    func alternating() {
        let bitmap = SubclusterBitmap(rawValue: 0xAAAA_AAAA_5555_5555)
        #expect(bitmap.defect(beside: Self.allocated) == nil)
        for index in 0..<32 { #expect(bitmap.mapping(ofSubcluster: index) == (index % 2 == 0 ? .allocated : .zero)) }
    }

    @Test("Bit 0 of the first half is a defect, and no zero flag", arguments: [1, 0x14001] as [UInt64])
    func zeroFlag(_ rawValue: UInt64) {
        let entry = L2Entry(rawValue: rawValue)
        #expect(entry.defect(in: Self.geometry) != nil)
        if case .zero = entry.mapping(in: Self.geometry) { Issue.record("mapped as zero") }
    }
}
