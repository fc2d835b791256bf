// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import Synchronization

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// How far an operation has come, on a terminal, once it takes longer than a second.
final class ProgressBar: Sendable {
    private let start = ContinuousClock.now
    private let isTerminal = isatty(2) == 1
    /// Tenths of a second after the start at which something was last drawn; 0 for never.
    private let lastDrawn = Atomic<Int>(0)

    func show(_ progress: Progress) {
        guard isTerminal, progress.total > 0 else { return }
        let now = Int(start.duration(to: .now) / .milliseconds(100))
        guard now >= 10, now != lastDrawn.load(ordering: .relaxed) else { return }
        lastDrawn.store(now, ordering: .relaxed)
        let width = 40
        let filled = Int(Double(width) * Double(progress.completed) / Double(progress.total))
        let bar = String(repeating: "#", count: filled) + String(repeating: " ", count: max(0, width - filled))
        let percent = Int(100 * Double(progress.completed) / Double(progress.total))
        Console.writeError("\r[\(bar)] \(percent) %")
    }

    /// Leaves an empty line.
    func clear() {
        if lastDrawn.load(ordering: .relaxed) > 0 { Console.writeError("\r\u{1B}[K") }
    }
}
