// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The states in which a crash can leave a file.
///
/// Section "6.0 Model".
///
/// Writes reach the disk sector by sector, in any order, or not at all, until a flush returns; each sector is whole.
public struct CrashStates: Sendable {
    private let initial: [UInt8]
    private let journal: [StorageEvent]
    private let randomStatesPerGroup: Int
    private let seed: UInt64
    private let tornStatesPerWrite: Int

    /// The states that are possible while the events of a journal happen to a file.
    ///
    /// - Parameters:
    ///   - initial: The file before the first event; on the disk.
    ///   - journal: The events.
    ///   - randomStatesPerGroup: How many random subsets of sectors to try between two flushes.
    ///   - tornStatesPerWrite: At how many of a write's sector borders to tear it, spread evenly; at all by default.
    ///   - seed: Decides the random subsets.
    public init(
        of initial: [UInt8], _ journal: [StorageEvent], randomStatesPerGroup: Int, tornStatesPerWrite: Int = .max,
        seed: UInt64
    ) {
        self.initial = initial
        self.journal = journal
        self.randomStatesPerGroup = randomStatesPerGroup
        self.tornStatesPerWrite = tornStatesPerWrite
        self.seed = seed
    }

    /// Calls `body` with every state, and how it came about.
    ///
    /// - Returns: How many states there were.
    @discardableResult
    public func forEach(_ body: (_ bytes: [UInt8], _ description: String) throws -> Void) rethrows -> Int {
        var count = 0
        func visit(_ bytes: [UInt8], _ description: String) throws {
            count += 1
            try body(bytes, description)
        }
        // The process is killed: everything it did stays.
        var bytes = initial
        try visit(bytes, "nothing done")
        for (index, event) in journal.enumerated() {
            event.apply(to: &bytes)
            try visit(bytes, "killed after event \(index)")
        }
        // The power fails: what was flushed stays, of the rest anything.
        var durable = initial
        var generator = SplitMix64(seed: seed)
        for (group, events) in groups().enumerated() {
            for (index, event) in events.enumerated() {
                var dropped = durable
                for (other, event) in events.enumerated() where other != index { event.apply(to: &dropped) }
                try visit(dropped, "group \(group): event \(index) lost")
                var alone = durable
                event.apply(to: &alone)
                try visit(alone, "group \(group): only event \(index)")
                let pieces = Self.sectors(of: event)
                let step = max(1, (pieces.count - 1) / max(1, tornStatesPerWrite))
                for border in stride(from: 1, to: pieces.count, by: step) {
                    var torn = durable
                    for piece in pieces[..<border] { piece.apply(to: &torn) }
                    try visit(torn, "group \(group): only event \(index), torn at sector \(border)")
                }
            }
            let pieces = events.flatMap(Self.sectors)
            for round in 0..<(pieces.count > 1 ? randomStatesPerGroup : 0) {
                var random = durable
                let bound = generator.next()
                for piece in pieces.shuffled(using: &generator) where generator.next() < bound {
                    piece.apply(to: &random)
                }
                try visit(random, "group \(group): random subset \(round), seed \(seed)")
            }
            for event in events { event.apply(to: &durable) }
        }
        return count
    }

    /// The events between flushes.
    private func groups() -> [[StorageEvent]] {
        var groups: [[StorageEvent]] = [[]]
        for event in journal {
            if event == .flush { groups.append([]) } else { groups[groups.count - 1].append(event) }
        }
        return groups
    }

    private static func sectors(of event: StorageEvent) -> [StorageEvent] {
        guard case .write(let bytes, let offset) = event else { return [event] }
        return stride(from: 0, to: bytes.count, by: 512).map { start in
            .write(Array(bytes[start..<min(bytes.count, start + 512)]), at: HostOffset(offset.rawValue + UInt64(start)))
        }
    }
}

/// A small random number generator whose sequence depends on the seed alone.
public struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Starts a sequence.
    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
