// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

extension WriteSession {
    /// Where tables that are in memory are said to be, for reading: behind everything that a file can hold.
    private static let memoryStart: UInt64 = 1 << 55

    /// The offset that stands for the table below an L1 entry.
    ///
    /// Can't overflow: at most 2^22 tables of at most 2^21 bytes, so it stays below 2^56.
    func memoryOffset(_ l1Index: UInt64) -> HostOffset {
        HostOffset(Self.memoryStart + l1Index << UInt64(geometry.clusterBits))
    }

    /// Fills `buffer` from a table in memory; false if the offset isn't one that stands for it.
    func read(into buffer: inout MutableSpan<UInt8>, at offset: HostOffset) -> Bool {
        guard offset.rawValue >= Self.memoryStart else { return false }
        let position = offset.rawValue - Self.memoryStart
        guard let table = tables.bytes(Int(position >> UInt64(geometry.clusterBits))) else { return false }
        let start = Int(position & (geometry.clusterSize - 1))
        for index in 0..<min(buffer.count, table.count - start) { buffer[index] = table[start + index] }
        return true
    }
}
