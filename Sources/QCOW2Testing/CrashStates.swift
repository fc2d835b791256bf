// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

/// The states in which a crash can leave a file.
///
/// Section "6.0 Model".
///
/// Until a flush returns, what was done since the flush before reaches the disk sector by sector, in any order, or not
/// at all; each sector is whole. That holds for changes of length and for holes, too: they are cached as writes are.
/// A process that is killed leaves all it had done, and of its last write perhaps only the start.
///
/// ```swift
/// let states = CrashStates(of: bytes, image.close().journal, randomStatesPerGroup: 24, seed: 1)
/// states.forEach { bytes, description in
///     // Nothing else may be there than the state before or the one after.
/// }
/// ```
public struct CrashStates: Sendable {
    private let initial: [UInt8]
    private let journal: [StorageEvent]
    private let randomStatesPerGroup: Int
    private let seed: UInt64
    private let tornStatesPerWrite: Int
    private let reordersEvents: Bool

    /// The states that are possible while the events of a journal happen to a file.
    ///
    /// - Parameters:
    ///   - initial: The file before the first event; on the disk.
    ///   - journal: The events.
    ///   - randomStatesPerGroup: How many random subsets of sectors to try between two flushes.
    ///   - tornStatesPerWrite: At how many of a write's sector borders to tear it, spread evenly; at all by default.
    ///   - reordersEvents: Whether events that overlap may reach the disk in another order than they were made in.
    ///     No page cache does that, but nothing in ``QCOW2/Storage``'s contract forbids it.
    ///   - seed: Decides the random subsets and orders.
    public init(
        of initial: [UInt8], _ journal: [StorageEvent], randomStatesPerGroup: Int, tornStatesPerWrite: Int = .max,
        reordersEvents: Bool = true, seed: UInt64
    ) {
        self.initial = initial
        self.journal = journal
        self.randomStatesPerGroup = randomStatesPerGroup
        self.tornStatesPerWrite = tornStatesPerWrite
        self.reordersEvents = reordersEvents
        self.seed = seed
    }

    /// Calls `body` with every state, each once, and with how it came about.
    ///
    /// - Returns: How many different states there were.
    @discardableResult
    public func forEach<Failure: Error>(
        _ body: (_ bytes: [UInt8], _ description: String) throws(Failure) -> Void
    ) throws(Failure) -> Int {
        let touched = touchedRanges()
        var seen: Set<Int> = []
        func visit(_ bytes: [UInt8], _ description: @autoclosure () -> String) throws(Failure) {
            guard seen.insert(Self.digest(of: bytes, touched)).inserted else { return }
            try body(bytes, description())
        }
        var durable = initial
        var generator = SplitMix64(seed: seed)
        try visit(initial, "nothing done")
        for (number, events) in groups().enumerated() {
            let group = Group(events: events)
            try visitKills(in: group, number, from: durable, visit)
            try visitPowerLosses(in: group, number, from: durable, visit)
            for round in 0..<(group.pieceCount > 1 ? randomStatesPerGroup : 0) {
                let random = group.randomSubset(of: durable, inOrder: !reordersEvents || round % 4 == 0, &generator)
                try visit(random, "group \(number): random subset \(round), seed \(seed)")
            }
            group.applyAll(to: &durable)
        }
        return seen.count
    }

    /// What the events change, in ranges that don't overlap.
    private func touchedRanges() -> [Range<Int>] {
        let all = journal.compactMap { event -> Range<Int>? in
            switch event {
            case .write(_, let offset), .punchHole(let offset, _):
                Int(offset.rawValue)..<(Int(offset.rawValue) + event.byteCount)
            case .flush, .truncate: nil
            }
        }
        var ranges: [Range<Int>] = []
        for range in all.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if let last = ranges.last, last.upperBound >= range.lowerBound {
                ranges[ranges.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
            } else {
                ranges.append(range)
            }
        }
        return ranges
    }

    /// Two states of one operation that are equal in length and in what was touched are the same state.
    private static func digest(of bytes: [UInt8], _ touched: [Range<Int>]) -> Int {
        var hasher = Hasher()
        hasher.combine(bytes.count)
        // SAFETY: the ranges are cut to the array's end.
        unsafe bytes.withUnsafeBytes { buffer in
            for range in touched where range.lowerBound < buffer.count {
                unsafe hasher.combine(
                    bytes: UnsafeRawBufferPointer(rebasing: buffer[range.clamped(to: 0..<buffer.count)]))
            }
        }
        return hasher.finalize()
    }

    private typealias Visit<Failure: Error> =
        (_ bytes: [UInt8], _ description: @autoclosure () -> String) throws(Failure) -> Void

    /// The process is killed: everything it did stays, and of its last write some sectors.
    private func visitKills<Failure: Error>(
        in group: Group, _ number: Int, from durable: [UInt8], _ visit: Visit<Failure>
    ) throws(Failure) {
        var bytes = durable
        for (index, event) in group.events.enumerated() {
            for border in group.borders(of: event, atMost: tornStatesPerWrite) {
                var torn = bytes
                event.apply(0..<border, to: &torn)
                try visit(torn, "group \(number): killed in event \(index), at byte \(border)")
            }
            event.apply(to: &bytes)
            try visit(bytes, "group \(number): killed after event \(index)")
        }
    }

    /// The power fails: what was flushed stays, of the rest anything.
    private func visitPowerLosses<Failure: Error>(
        in group: Group, _ number: Int, from durable: [UInt8], _ visit: Visit<Failure>
    ) throws(Failure) {
        for (index, event) in group.events.enumerated() {
            var others = durable
            for (other, event) in group.events.enumerated() where other != index { event.apply(to: &others) }
            try visit(others, "group \(number): event \(index) lost")
            var alone = durable
            event.apply(to: &alone)
            try visit(alone, "group \(number): only event \(index)")
            for border in group.borders(of: event, atMost: tornStatesPerWrite) {
                // The start without the rest, alone or with all others; the rest without the start, likewise.
                for part in [0..<border, border..<event.byteCount] {
                    var alone = durable
                    event.apply(part, to: &alone)
                    try visit(alone, "group \(number): only bytes \(part) of event \(index)")
                    var torn = others
                    event.apply(part, to: &torn)
                    try visit(torn, "group \(number): of event \(index) only bytes \(part)")
                }
            }
        }
    }

    /// The events between flushes.
    private func groups() -> [[StorageEvent]] {
        var groups: [[StorageEvent]] = [[]]
        for event in journal {
            if event == .flush { groups.append([]) } else { groups[groups.count - 1].append(event) }
        }
        return groups
    }
}

/// What happened between two flushes.
private struct Group {
    let events: [StorageEvent]
    /// Each event's parts that reach the disk whole or not at all.
    private let pieces: [(event: Int, part: Range<Int>)]

    init(events: [StorageEvent]) {
        self.events = events
        pieces = events.enumerated().flatMap { index, event in
            guard event.byteCount > 0 else { return [(event: index, part: 0..<0)] }
            return stride(from: 0, to: event.byteCount, by: 512).map { start in
                (event: index, part: start..<min(event.byteCount, start + 512))
            }
        }
    }

    var pieceCount: Int { pieces.count }

    func applyAll(to bytes: inout [UInt8]) {
        for event in events { event.apply(to: &bytes) }
    }

    /// Where an event can be torn, in bytes from its start.
    func borders(of event: StorageEvent, atMost count: Int) -> [Int] {
        let all = Array(stride(from: 512, to: event.byteCount, by: 512))
        guard all.count > count else { return all }
        return (0..<count).map { all[$0 * all.count / count] }
    }

    /// Some of the sectors, in the order of the events or in any.
    func randomSubset(of durable: [UInt8], inOrder: Bool, _ generator: inout SplitMix64) -> [UInt8] {
        var bytes = durable
        let bound = generator.next()
        for piece in inOrder ? pieces : pieces.shuffled(using: &generator) where generator.next() < bound {
            events[piece.event].apply(piece.part, to: &bytes)
        }
        return bytes
    }
}
