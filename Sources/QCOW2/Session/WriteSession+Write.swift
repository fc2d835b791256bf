// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// Writes some bytes of one guest cluster.
    ///
    /// - Parameters:
    ///   - bytes: What to write; at least one byte.
    ///   - guestCluster: The cluster's index in the disk.
    ///   - start: The first byte's position in the cluster, which the bytes don't leave.
    ///   - storage: The image file.
    /// - Throws: What reading, writing and decompressing throw, and ``QCOW2Error/Code/limitExceeded``.
    mutating func store<S: Storage & ~Copyable>(
        _ bytes: Span<UInt8>, to guestCluster: UInt64, from start: Int, in storage: inout S
    ) throws(QCOW2Error) {
        let target = try target(guestCluster, start..<(start + bytes.count), storage)
        if let host = target.entry.ownCluster,
            try refcounts.refcount(of: geometry.cluster(at: host), from: storage) == 1
        {
            try overwrite(target, at: host, bytes, &storage)
        } else {
            try replace(target, bytes, &storage)
        }
    }

    /// A part of a guest cluster, and what is there now.
    private struct Target {
        let guestCluster: UInt64
        /// The part's bytes in the cluster.
        let range: Range<Int>
        let entry: L2Entry
        let units: ClusterUnits
        /// Where the disk ends in the cluster, or the cluster's end.
        let visibleEnd: Int

        /// The units that the part touches.
        var touched: ClosedRange<Int> {
            (range.lowerBound / units.byteCount)...((range.upperBound - 1) / units.byteCount)
        }

        /// Whether nothing that the guest can see of a unit stays as it is.
        func covers(_ unit: Int) -> Bool {
            range.lowerBound <= unit * units.byteCount
                && range.upperBound >= min((unit + 1) * units.byteCount, visibleEnd)
        }
    }

    private mutating func target<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ range: Range<Int>, _ storage: borrowing S
    ) throws(QCOW2Error) -> Target {
        let (entry, units) = try entry(of: guestCluster, from: storage)
        return Target(
            guestCluster: guestCluster, range: range, entry: entry, units: units, visibleEnd: visibleEnd(guestCluster))
    }

    /// Where the disk ends in a cluster that is at least partly inside it, or the cluster's end.
    func visibleEnd(_ guestCluster: UInt64) -> Int {
        let start = guestCluster << UInt64(geometry.clusterBits)
        return Int(min(geometry.clusterSize, diskSize - min(diskSize, start)))
    }

    /// Refuses a write that would need what the backing file holds, if nobody may read that.
    ///
    /// Only the ends of a write can leave a part of a unit as it is.
    mutating func checkBacking<S: Storage & ~Copyable>(
        _ guestCluster: UInt64, _ range: Range<Int>, from storage: borrowing S
    ) throws(QCOW2Error) {
        guard backing.exists, backing.reader == nil else { return }
        let target = try target(guestCluster, range, storage)
        for unit in [target.touched.lowerBound, target.touched.upperBound] where !target.covers(unit) {
            if target.units[unit] == .unallocated { throw .needsBacking(target.guestCluster, geometry) }
        }
    }

    /// Writes into a cluster that nobody else refers to.
    ///
    /// What of it the committed state shows is changed in place, sector by sector as any disk does; a unit that it
    /// doesn't show, for it is a zero or an unallocated one, is filled up first.
    private mutating func overwrite<S: Storage & ~Copyable>(
        _ target: Target, at host: HostOffset, _ bytes: Span<UInt8>, _ storage: inout S
    ) throws(QCOW2Error) {
        var units = target.units
        let (touched, unit) = (target.touched, units.byteCount)
        let low = units[touched.lowerBound] == .allocated ? target.range.lowerBound : touched.lowerBound * unit
        let high = units[touched.upperBound] == .allocated ? target.range.upperBound : (touched.upperBound + 1) * unit
        if low..<high == target.range {
            try put(bytes, at: host.saturating(adding: UInt64(low)), in: &storage)
        } else {
            var buffer = [UInt8](repeating: 0, count: high - low)
            try fillEnds(of: target, in: &buffer, from: low)
            copy(bytes, into: &buffer, at: target.range.lowerBound - low)
            try put(buffer.span, at: host.saturating(adding: UInt64(low)), in: &storage)
        }
        guard touched.contains(where: { units[$0] != .allocated }) else { return }
        for index in touched { units[index] = .allocated }
        try setEntry(
            L2Entry(rawValue: host.rawValue).withCopied(true), units, of: target.guestCluster, from: storage)
    }

    /// Writes into a new cluster, with everything of the old one that stays.
    private mutating func replace<S: Storage & ~Copyable>(
        _ target: Target, _ bytes: Span<UInt8>, _ storage: inout S
    ) throws(QCOW2Error) {
        let cluster = try allocate(1, from: storage).first
        var units = target.units
        do throws(QCOW2Error) {
            // Looked at before anything changes, so that a failure to read them changes nothing.
            for old in clusters(of: target.entry) { _ = try refcounts.refcount(of: old, from: storage) }
            try fill(cluster, target, bytes, &units, &storage)
            try setEntry(
                L2Entry(rawValue: geometry.offset(ofCluster: cluster).rawValue).withCopied(true), units,
                of: target.guestCluster, from: storage)
        } catch {
            try? release(cluster, isData: true, from: storage)
            throw error
        }
        try release(target.entry, from: storage)
    }

    private mutating func fill<S: Storage & ~Copyable>(
        _ cluster: UInt64, _ target: Target, _ bytes: Span<UInt8>, _ units: inout ClusterUnits, _ storage: inout S
    ) throws(QCOW2Error) {
        let host = geometry.offset(ofCluster: cluster)
        let unit = units.byteCount
        if bytes.count == geometry.clusterByteCount {
            units.allocateAll()
            return try put(bytes, at: host, in: &storage)
        }
        var buffer = try oldBytes(of: target, storage)
        try fillEnds(of: target, in: &buffer, from: 0)
        copy(bytes, into: &buffer, at: target.range.lowerBound)
        for index in target.touched { units[index] = .allocated }
        var index = 0
        while index < units.count {
            let first = index
            while index < units.count, units[index] == .allocated { index += 1 }
            if first < index {
                let part = buffer.span.extracting((first * unit)..<(index * unit))
                try put(part, at: host.saturating(adding: UInt64(first * unit)), in: &storage)
            } else {
                index += 1
            }
        }
    }

    /// A cluster's bytes, with zeros where it has none of its own.
    private func oldBytes<S: Storage & ~Copyable>(
        of target: Target, _ storage: borrowing S
    ) throws(QCOW2Error) -> [UInt8] {
        let units = target.units
        switch target.entry.mapping(in: geometry) {
        case .compressed(let compressed):
            return try storage.decompress(compressed, compressionType, geometry)
        case .standard(let host) where (0..<units.count).contains { units[$0] == .allocated && !target.covers($0) }:
            var bytes = try storage.readBytes(geometry.clusterByteCount, at: host)
            for index in 0..<units.count where units[index] != .allocated {
                for byte in (index * units.byteCount)..<((index + 1) * units.byteCount) { bytes[byte] = 0 }
            }
            return bytes
        case .standard, .zero, .unallocated: return [UInt8](repeating: 0, count: geometry.clusterByteCount)
        }
    }

    /// Puts what the backing file holds into those units at the ends of a write that have no bytes of their own.
    private func fillEnds(of target: Target, in buffer: inout [UInt8], from low: Int) throws(QCOW2Error) {
        guard backing.exists else { return }
        let unit = target.units.byteCount
        for index in Set([target.touched.lowerBound, target.touched.upperBound]) {
            guard target.units[index] == .unallocated, !target.covers(index) else { continue }
            guard let reader = backing.reader else { throw .needsBacking(target.guestCluster, geometry) }
            let count = min((index + 1) * unit, target.visibleEnd) - index * unit
            let start = target.guestCluster << UInt64(geometry.clusterBits) + UInt64(index * unit)
            let bytes = try reader(GuestOffset(start), count)
            guard bytes.count == count else {
                throw QCOW2Error(.inputOutput, "The backing file's reader returned \(bytes.count) of \(count) bytes.")
            }
            copy(bytes.span, into: &buffer, at: index * unit - low)
        }
    }

    private func copy(_ bytes: Span<UInt8>, into buffer: inout [UInt8], at position: Int) {
        // SAFETY: both pointers are valid for the closures' time, and `update` checks the lengths in debug builds; the
        // callers keep the part inside the buffer, which the slice's bounds check enforces.
        unsafe buffer.withUnsafeMutableBufferPointer { target in
            unsafe bytes.withUnsafeBufferPointer { source in
                _ = unsafe target[position..<(position + source.count)].update(fromContentsOf: source)
            }
        }
    }

    /// The host clusters that an entry refers to.
    private func clusters(of entry: L2Entry) -> Range<UInt64> {
        switch entry.mapping(in: geometry) {
        case .unallocated, .zero(preallocated: nil): return 0..<0
        case .standard(let host), .zero(preallocated: .some(let host)):
            let cluster = geometry.cluster(at: host)
            return cluster..<(cluster + 1)
        case .compressed(let compressed):
            let run = compressed.run(in: geometry)
            return run.first..<run.end
        }
    }
}

extension QCOW2Error {
    static func needsBacking(_ guestCluster: UInt64, _ geometry: ImageGeometry) -> Self {
        let offset = GuestOffset(guestCluster << UInt64(geometry.clusterBits))
        return Self(
            .backingFileNotAllowed,
            "Writing a part of the cluster at guest offset \(offset) needs what the backing file has there, which "
                + "isn't opened.")
    }
}
