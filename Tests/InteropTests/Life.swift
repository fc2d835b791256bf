// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import QCOW2Testing
import TestTools
import Testing

/// A sequence of ordinary steps, and what else happens to an image in a long life.
struct Life {
    var sequence: RandomSequence
    /// How often each thing happened.
    private(set) var counts: [String: Int] = [:]

    init(_ sequence: RandomSequence) { self.sequence = sequence }

    private enum Event: String {
        case ordinary, crash, fault, secondHandle, longSession, leak, repair
    }

    /// Lets one random thing happen, and looks at everything.
    mutating func step() throws {
        let events: [Event] = [.crash, .crash, .fault, .fault, .secondHandle, .longSession, .leak, .repair]
        let roll = Int.random(in: 0..<24, using: &sequence.random)
        let event = roll < events.count ? events[roll] : .ordinary
        counts[event.rawValue, default: 0] += 1
        switch event {
        case .ordinary: return try sequence.step()
        case .crash: try crash()
        case .fault: try fail()
        case .secondHandle: try meetSecondHandle()
        case .longSession: try holdSession()
        case .leak: try leakAndRepair()
        case .repair: try repair()
        }
        try sequence.disk.verifyClean(sequence.story)
        try sequence.disk.verifyStates(sequence.story)
    }

    /// A verb whose outcome the names of the snapshots tell.
    private enum Change {
        case create(String)
        case applySaving(String, as: String)
        case delete(String)

        func perform<S: Storage & ~Copyable>(on image: inout Image<S>) throws(QCOW2Error) {
            switch self {
            case .create(let name): try image.createSnapshot(named: name)
            case .applySaving(let name, let saved): try image.applySnapshot(.name(name), savingCurrentAs: saved)
            case .delete(let name): try image.deleteSnapshots([.name(name)])
            }
        }

        func isDone(in names: Set<String>) -> Bool {
            switch self {
            case .create(let name), .applySaving(_, let name): names.contains(name)
            case .delete(let name): !names.contains(name)
            }
        }
    }

    private mutating func change() -> Change {
        let new = sequence.newName()
        let names = sequence.disk.snapshots.keys.sorted()
        guard let name = names.randomElement(using: &sequence.random) else { return .create(new) }
        switch Int.random(in: 0..<3, using: &sequence.random) {
        case 0: return .create(new)
        case 1: return .applySaving(name, as: new)
        default: return .delete(name)
        }
    }

    /// Brings the model to what the file turned out to be.
    private mutating func follow(_ change: Change) throws {
        let names = Set(try Image.open(sequence.disk.path, for: .reading).snapshots.map(\.name))
        guard change.isDone(in: names) else { return sequence.note("old state") }
        sequence.note("new state")
        switch change {
        case .create(let name): sequence.disk.created(name)
        case .applySaving(let name, let saved):
            sequence.disk.created(saved)
            sequence.disk.applied(name)
        case .delete(let name): sequence.disk.deleted(name)
        }
    }

    private var bytes: [UInt8] {
        get throws { [UInt8](try Data(contentsOf: URL(fileURLWithPath: sequence.disk.path))) }
    }

    private func write(_ bytes: [UInt8]) throws {
        try Data(bytes).write(to: URL(fileURLWithPath: sequence.disk.path))
    }

    /// The power fails, or the process is killed, in the midst of a verb.
    private mutating func crash() throws {
        let change = change()
        sequence.note("crash in \(change)")
        let before = try bytes
        var image = try Image(storage: InMemoryStorage(before))
        guard try allowingOverflow({ () throws(QCOW2Error) in try change.perform(on: &image) }) else { return }
        let states = CrashStates(
            of: before, image.close().journal, randomStatesPerGroup: 2, tornStatesPerWrite: 2,
            seed: sequence.random.next())
        // One of them all, each as likely as another.
        var count: UInt64 = 0
        var chosen = before
        states.forEach { state, _ in
            count += 1
            if sequence.random.next() % count == 0 { chosen = state }
        }
        try write(chosen)
        try follow(change)
    }

    /// A system call fails.
    private mutating func fail() throws {
        let change = change()
        let effect: FaultInjectingStorage.Effect =
            [.none, .half, .whole].randomElement(using: &sequence.random) ?? .none
        let index = Int.random(in: 0..<40, using: &sequence.random)
        sequence.note("fault at \(index), \(effect), in \(change)")
        let before = try bytes
        var after = before
        do throws(QCOW2Error) {
            var image = try Image(storage: FaultInjectingStorage(before, failingAt: index, effect: effect))
            do throws(QCOW2Error) { try change.perform(on: &image) } catch {
                if error.code == .inputOutput {
                    // The value goes on with what the file is: the names that it has must be those of the file.
                    sequence.note("failed")
                }
            }
            after = image.close().base.bytes
        } catch {
            guard error.code == .inputOutput else { throw error }
        }
        try write(after)
        try follow(change)
    }

    /// Whether a verb was carried out, or refused because a narrow refcount would overflow.
    private func allowingOverflow(_ body: () throws(QCOW2Error) -> Void) throws -> Bool {
        do throws(QCOW2Error) {
            try body()
            return true
        } catch {
            guard error.code == .limitExceeded, sequence.disk.layout.refcountBits <= 4 else { throw error }
            return false
        }
    }
}
