// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Cuts work into items.
protocol WorkSource: SendableMetatype {
    associatedtype Item: Sendable
    mutating func next() throws(QCOW2Error) -> Item?
}

/// Works on a disk's chunks on several threads, and hands the results out in the disk's order.
///
/// Work is what takes time, such as reading and decompressing; results wait in a few places, so memory is bounded and
/// no thread runs far ahead.
final class ChunkPipeline<Source: WorkSource, Place: AnyObject & Sendable>: Sendable {
    typealias Item = Source.Item
    typealias Work = @Sendable (Item, Place) throws(QCOW2Error) -> Void

    private struct State {
        var source: Source
        var chunks: [Item?]
        var isReady: [Bool]
        /// Chunks that a thread has taken, and those that have been handed out.
        var takenCount = 0
        var doneCount = 0
        var isAtEnd = false
        var failure: QCOW2Error?
    }

    private let places: [Place]
    private let monitor = Monitor()
    // SAFETY: only touched inside `monitor.locked`.
    private nonisolated(unsafe) var state: State

    init(_ source: Source, _ places: [Place]) {
        self.places = places
        unsafe state = State(
            source: source, chunks: Array(repeating: nil, count: places.count),
            isReady: Array(repeating: false, count: places.count))
    }

    /// Calls `work` for each chunk on some thread, and then `finish` on this one, in order.
    ///
    /// - Throws: The first error that `work` or `finish` threw; no more work is begun then.
    func run(
        threadCount: Int, _ work: Work,
        finish: (Item, Place) throws(QCOW2Error) -> Void
    ) throws(QCOW2Error) {
        var failure: QCOW2Error?
        Threads.run(max(1, threadCount)) {
            while step(work) {}
        } meanwhile: { startedCount in
            do throws(QCOW2Error) {
                while true {
                    // Without any other thread, this one does the work, too.
                    if startedCount == 0 { _ = step(work) }
                    guard let (chunk, place) = try nextResult() else { break }
                    try finish(chunk, place)
                    free()
                }
            } catch {
                failure = error
                stop()
            }
        }
        if let failure { throw failure }
    }

    /// Takes one chunk and works on it; false when there is no more to do.
    private func step(_ work: Work) -> Bool {
        let taken = monitor.locked { () -> (Item, Int)? in
            while unsafe state.failure == nil, unsafe !state.isAtEnd,
                unsafe state.takenCount - state.doneCount == places.count
            { monitor.wait() }
            return take()
        }
        guard let (chunk, index) = taken else { return false }
        do throws(QCOW2Error) {
            try work(chunk, places[index])
            monitor.locked {
                unsafe state.isReady[index] = true
                monitor.signal()
            }
            return true
        } catch {
            monitor.locked { fail(error) }
            return false
        }
    }

    private func take() -> (Item, Int)? {
        guard unsafe state.failure == nil, unsafe !state.isAtEnd else { return nil }
        do throws(QCOW2Error) {
            guard let chunk = try unsafe state.source.next() else {
                unsafe state.isAtEnd = true
                monitor.signal()
                return nil
            }
            let index = unsafe state.takenCount % places.count
            unsafe state.chunks[index] = chunk
            unsafe state.takenCount += 1
            return (chunk, index)
        } catch {
            fail(error)
            return nil
        }
    }

    /// Waits for the next chunk in order; `nil` after the last.
    private func nextResult() throws(QCOW2Error) -> (Item, Place)? {
        var failure: QCOW2Error?
        let result = monitor.locked { () -> (Item, Place)? in
            let index = unsafe state.doneCount % places.count
            while unsafe state.failure == nil, unsafe !state.isReady[index],
                unsafe !(state.isAtEnd && state.doneCount == state.takenCount)
            { monitor.wait() }
            failure = unsafe state.failure
            guard failure == nil, unsafe state.isReady[index], let chunk = unsafe state.chunks[index] else {
                return nil
            }
            return (chunk, places[index])
        }
        if let failure { throw failure }
        return result
    }

    /// Makes the place of the chunk that was finished last free again.
    private func free() {
        monitor.locked {
            unsafe state.isReady[state.doneCount % places.count] = false
            unsafe state.doneCount += 1
            monitor.signal()
        }
    }

    private func stop() {
        monitor.locked { fail(QCOW2Error(.cancelled, "The operation was cancelled.")) }
    }

    private func fail(_ error: QCOW2Error) {
        if unsafe state.failure == nil { unsafe state.failure = error }
        monitor.signal()
    }
}
