// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension HeaderFields {
    private typealias Layout = Header.Layout

    /// What must be so that the rest of the header means something, in the order in which it is looked at.
    enum Rule: CaseIterable {
        case magic, version, length, clusterBits, cryptMethod, refcountOrder, headerLength, wholeHeader
        case extendedL2Clusters
    }

    /// Checks one of the rules; of a header that ends before a field, only the one about its length.
    ///
    /// - Throws: ``QCOW2Error`` with the code `notQCOW2`, `unsupported` or `corrupt`.
    func check(_ rule: Rule) throws(QCOW2Error) {
        switch rule {
        case .magic: guard hasMagic, version != nil else { throw .notQCOW2() }
        case .version: try checkVersion()
        case .length:
            let needed = hasVersion3Fields ? Layout.version3ByteCount : Layout.version2ByteCount
            guard bytes.count >= needed else {
                throw .truncated("header", needed: needed, have: bytes.count, at: HostOffset(0))
            }
        case .clusterBits: try check(Layout.clusterBits, in: ImageGeometry.clusterBitsRange)
        case .cryptMethod: try check(Layout.cryptMethod, in: 0...2)
        case .refcountOrder: try check(Layout.refcountOrder, in: 0...6)
        case .headerLength: try checkHeaderLength()
        case .wholeHeader:
            guard let byteCount, bytes.count < byteCount, bytes.count >= Layout.version3ByteCount else { return }
            throw .truncated("header", needed: byteCount, have: bytes.count, at: HostOffset(0))
        case .extendedL2Clusters:
            guard incompatibleFeatures.contains(.extendedL2), geometry != nil else { return }
            try check(Layout.clusterBits, in: 14...ImageGeometry.clusterBitsRange.upperBound)
        }
    }

    private func checkVersion() throws(QCOW2Error) {
        guard let version, version != 2, version != 3 else { return }
        throw QCOW2Error(
            .unsupported, "The image has qcow version \(version); only 2 and 3 are supported.",
            at: HostOffset(UInt64(Layout.version.offset)))
    }

    private func checkHeaderLength() throws(QCOW2Error) {
        guard has(Layout.headerLength), byteCount == nil else { return }
        let limit = UInt32(geometry?.clusterSize ?? ImageGeometry.sectorSize)
        try check(Layout.headerLength, in: UInt32(Layout.version3ByteCount)...limit)
    }

    private func check(_ field: Field<UInt32>, in range: ClosedRange<UInt32>) throws(QCOW2Error) {
        guard has(field) else { return }
        let value = UInt32(truncatingIfNeeded: self[field])
        guard range.contains(value) else { throw .outOfRange(field, value, range) }
    }

    /// Whether the header has the fields that version 3 brought.
    var hasVersion3Fields: Bool { (version ?? 0) >= 3 }
}

extension QCOW2Error {
    static func invalid<T>(_ field: Field<T>, _ why: String) -> Self {
        invalid(field.name, why, at: HostOffset(UInt64(field.offset)))
    }

    static func outOfRange<T>(_ field: Field<T>, _ value: T, _ range: ClosedRange<T>) -> Self {
        outOfRange(field.name, value, range, at: HostOffset(UInt64(field.offset)))
    }
}
