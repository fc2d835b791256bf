// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Synchronization

/// Keeps parts of L2 tables that were read, for any number of threads.
///
/// Holds at most as many bytes as it was told, and none that haven't been read; the least recently used go first, by
/// the second-chance rule.
final class L2SliceCache: Sendable {
    private struct Slot {
        var offset: HostOffset
        var bytes: [UInt8]
        var wasUsed: Bool
    }

    private struct Slots {
        var slots: [Slot] = []
        var indices: [HostOffset: Int] = [:]
        var hand = 0
    }

    private let slots = Mutex(Slots())
    private let capacity: Int

    /// A cache of about `byteCount` bytes of slices of one size.
    init(byteCount: Int, sliceByteCount: Int) { capacity = max(2, byteCount / sliceByteCount) }

    /// The slice at an offset: from memory, or else read.
    ///
    /// Nothing is locked while reading, so two threads may read the same slice; that costs only time.
    func slice(at offset: HostOffset, _ byteCount: Int, read: FileRead) throws(QCOW2Error) -> [UInt8] {
        let found = slots.withLock { (slots) -> [UInt8]? in
            guard let index = slots.indices[offset] else { return nil }
            slots.slots[index].wasUsed = true
            return slots.slots[index].bytes
        }
        if let found { return found }
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var span = bytes.mutableSpan
        try read(&span, offset)
        let slice = bytes
        slots.withLock { insert(slice, at: offset, into: &$0) }
        return slice
    }

    private func insert(_ slice: [UInt8], at offset: HostOffset, into slots: inout Slots) {
        guard slots.indices[offset] == nil else { return }
        let slot = Slot(offset: offset, bytes: slice, wasUsed: false)
        guard slots.slots.count >= capacity else {
            slots.indices[offset] = slots.slots.count
            slots.slots.append(slot)
            return
        }
        while slots.slots[slots.hand].wasUsed {
            slots.slots[slots.hand].wasUsed = false
            slots.hand = (slots.hand + 1) % capacity
        }
        slots.indices[slots.slots[slots.hand].offset] = nil
        slots.slots[slots.hand] = slot
        slots.indices[offset] = slots.hand
        slots.hand = (slots.hand + 1) % capacity
    }
}
