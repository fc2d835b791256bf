// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// How a range comes to read as zeros.
    enum Zeroing: Hashable, Sendable {
        /// All of it does, if bytes must be written for that.
        case always
        /// Where no byte must be written for that.
        case whereFree
    }

    /// Makes a part of a guest cluster read as zeros.
    ///
    /// Section "6.6 Guest write path": without bytes where a whole unit does.
    mutating func zero<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ range: Range<Int>, _ zeroing: Zeroing, in storage: inout S
    ) throws(QCOW2Error) {
        var (entry, units) = try entry(of: guestCluster, from: storage)
        let unit = units.byteCount
        let firstWhole = (range.lowerBound + unit - 1) / unit
        let endWhole = range.upperBound >= visibleEnd(guestCluster) ? units.count : range.upperBound / unit
        let whole = firstWhole..<max(firstWhole, endWhole)
        if zeroing == .always {
            var ends = [range]
            if !whole.isEmpty {
                ends = [
                    range.lowerBound..<(firstWhole * unit),
                    min(endWhole * unit, range.upperBound)..<range.upperBound,
                ]
            }
            for end in ends where !end.isEmpty && !readsAsZeros(end, units) {
                try writeZeros(guestCluster, end, &storage)
            }
            (entry, units) = try self.entry(of: guestCluster, from: storage)
        }
        guard !whole.isEmpty else { return }
        if !geometry.hasZeroFlag, !geometry.hasExtendedL2 {
            try unmap(guestCluster, entry, units, zeroing, &storage)
        } else if whole == 0..<units.count {
            try zeroWhole(guestCluster, entry, units, zeroing, &storage)
        } else {
            try zeroUnits(whole, guestCluster, entry, units, zeroing, &storage)
        }
    }

    /// Whether every unit that a part touches reads as zeros, whatever bytes there are.
    private func readsAsZeros(_ range: Range<Int>, _ units: ClusterUnits) -> Bool {
        (range.lowerBound / units.byteCount...(range.upperBound - 1) / units.byteCount).allSatisfy {
            units[$0] == .zero || (units[$0] == .unallocated && !backing.exists)
        }
    }

    private mutating func writeZeros<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ range: Range<Int>, _ storage: inout S
    ) throws(QCOW2Error) {
        let zeros = [UInt8](repeating: 0, count: range.count)
        try store(zeros.span, to: guestCluster, from: range.lowerBound, in: &storage)
    }

    /// Version 2 has no mapping that reads as zeros, except none at all, and that only without a backing file.
    private mutating func unmap<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ entry: L2Entry, _ units: ClusterUnits, _ zeroing: Zeroing, _ storage: inout S
    ) throws(QCOW2Error) {
        if backing.exists {
            if zeroing == .always { try writeZeros(guestCluster, 0..<visibleEnd(guestCluster), &storage) }
        } else if entry.rawValue != 0 {
            try setEntry(L2Entry(rawValue: 0), units, of: guestCluster, from: storage)
            try release(entry, from: storage)
        }
    }

    private mutating func zeroWhole<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ entry: L2Entry, _ units: ClusterUnits, _ zeroing: Zeroing, _ storage: inout S
    ) throws(QCOW2Error) {
        var zeroUnits = units
        for index in 0..<units.count { zeroUnits[index] = .zero }
        if entry.ownCluster == nil, !entry.isCompressed, readsAsZeros(0..<geometry.clusterByteCount, units) { return }
        // Storage that was preallocated stays, unless it is to be given up.
        if zeroing == .always, case .zero = entry.mapping(in: geometry) { return }
        let zero = L2Entry(rawValue: geometry.hasExtendedL2 ? 0 : L2Entry.Bits.zero)
        try setEntry(zero, zeroUnits, of: guestCluster, from: storage)
        try release(entry, from: storage)
    }

    /// Some subclusters of a cluster.
    private mutating func zeroUnits<S: Storage & ~Copyable>(
        _ whole: Range<Int>, _ guestCluster: UInt64, _ entry: L2Entry, _ units: ClusterUnits, _ zeroing: Zeroing,
        _ storage: inout S
    ) throws(QCOW2Error) {
        guard !entry.isCompressed else {
            if zeroing == .always {
                let end = min(whole.upperBound * units.byteCount, visibleEnd(guestCluster))
                try writeZeros(guestCluster, (whole.lowerBound * units.byteCount)..<end, &storage)
            }
            return
        }
        var changed = units
        for index in whole where units[index] == .allocated || backing.exists { changed[index] = .zero }
        guard changed != units else { return }
        guard !changed.contains(.allocated), entry.ownCluster != nil else {
            return try setEntry(entry, changed, of: guestCluster, from: storage)
        }
        try setEntry(L2Entry(rawValue: 0), changed, of: guestCluster, from: storage)
        try release(entry, from: storage)
    }
}
