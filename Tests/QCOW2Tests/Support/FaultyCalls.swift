// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import Synchronization

@testable import QCOW2

/// The operating system's calls, of which one goes wrong, or all from one on.
struct FaultyCalls: FileCalls {
    /// What a call does.
    enum Kind: String, CaseIterable {
        case status, read, write, flush, truncate, punch
        // Of files that appear under a name when they are complete.
        case link, rename, flushFolder

        /// How an error of the library names it.
        var words: String {
            switch self {
            case .status: "Inspecting"
            case .read: "Reading"
            case .write: "Writing"
            case .flush: "Flushing"
            case .truncate: "Changing the length of"
            case .punch: "Punching a hole into"
            case .link, .rename: "Naming"
            case .flushFolder: "Flushing the folder of"
            }
        }
    }

    /// How a call goes wrong.
    enum Fault: Hashable {
        case error(Int32)
        /// A read or a write does half of its work, and says so.
        case short
        /// A write writes nothing, and gives no reason.
        case nothing

        func applies(to kind: Kind) -> Bool {
            switch self {
            case .error: true
            case .short: kind == .read || kind == .write
            case .nothing: kind == .write
            }
        }
    }

    /// A call that was made, with its place in the file where it has one.
    struct Call: Hashable {
        let kind: Kind
        var position: Int?
    }

    /// What will go wrong, and what was done.
    final class Script: Sendable {
        struct State {
            var calls: [Call] = []
            var plan: (index: Int, fault: Fault, isLasting: Bool)?
            var locks: Int32?
            var wholeLocks: Int32?
            var descriptors: [Int32] = []
        }
        let state = Mutex(State())

        var calls: [Call] { state.withLock { $0.calls } }

        /// From now on counts calls anew, and lets one go wrong.
        func plan(_ fault: Fault, at index: Int, isLasting: Bool = false) {
            state.withLock {
                $0.calls = []
                $0.plan = (index, fault, isLasting)
            }
        }

        func clear() {
            state.withLock {
                $0.calls = []
                $0.plan = nil
            }
        }

        /// Records a call, and says what it must do wrong.
        fileprivate func fault(_ call: Call) -> Fault? {
            state.withLock {
                $0.calls.append(call)
                guard let plan = $0.plan else { return nil }
                let index = $0.calls.count - 1
                guard plan.isLasting ? index >= plan.index : index == plan.index else { return nil }
                return plan.fault.applies(to: call.kind) ? plan.fault : nil
            }
        }
    }

    let script = Script()
    private let kernel = KernelCalls()

    private func failure<Result: SignedInteger>(_ fault: Fault) -> Result? {
        guard case .error(let number) = fault else { return nil }
        errno = number
        return -1
    }

    func open(_ path: String, _ flags: Int32) -> Int32 {
        let descriptor = kernel.open(path, flags)
        script.state.withLock { $0.descriptors.append(descriptor) }
        return descriptor
    }

    func openFollowingNoLinks(_ path: String, _ flags: Int32) -> Int32 {
        let descriptor = kernel.openFollowingNoLinks(path, flags)
        script.state.withLock { $0.descriptors.append(descriptor) }
        return descriptor
    }

    func close(_ descriptor: Int32) -> Int32 { kernel.close(descriptor) }

    func status(_ descriptor: Int32, _ status: inout stat) -> Int32 {
        script.fault(Call(kind: .status)).flatMap { failure($0) } ?? kernel.status(descriptor, &status)
    }

    func read(_ descriptor: Int32, _ buffer: UnsafeMutableRawBufferPointer, _ position: off_t) -> Int {
        guard let fault = script.fault(Call(kind: .read, position: position)) else {
            return kernel.read(descriptor, buffer, position)
        }
        let half = UnsafeMutableRawBufferPointer(rebasing: buffer[..<((buffer.count + 1) / 2)])
        return failure(fault) ?? kernel.read(descriptor, half, position)
    }

    // A hint can't go wrong in a way that anybody sees.
    func advise(_ descriptor: Int32, _ start: off_t, _ length: off_t) {}

    func write(_ descriptor: Int32, _ buffer: UnsafeRawBufferPointer, _ position: off_t) -> Int {
        guard let fault = script.fault(Call(kind: .write, position: position)) else {
            return kernel.write(descriptor, buffer, position)
        }
        if fault == .nothing { return 0 }
        let half = UnsafeRawBufferPointer(rebasing: buffer[..<((buffer.count + 1) / 2)])
        return failure(fault) ?? kernel.write(descriptor, half, position)
    }

    func flush(_ descriptor: Int32) -> Int32 {
        script.fault(Call(kind: .flush)).flatMap { failure($0) } ?? kernel.flush(descriptor)
    }

    func flushFolder(_ descriptor: Int32) -> Int32 {
        script.fault(Call(kind: .flushFolder)).flatMap { failure($0) } ?? kernel.flushFolder(descriptor)
    }

    func link(_ path: String, _ newPath: String) -> Int32 {
        script.fault(Call(kind: .link)).flatMap { failure($0) } ?? kernel.link(path, newPath)
    }

    func rename(_ path: String, _ newPath: String) -> Int32 {
        script.fault(Call(kind: .rename)).flatMap { failure($0) } ?? kernel.rename(path, newPath)
    }

    func truncate(_ descriptor: Int32, _ length: off_t) -> Int32 {
        script.fault(Call(kind: .truncate, position: length)).flatMap { failure($0) }
            ?? kernel.truncate(descriptor, length)
    }

    func punch(_ descriptor: Int32, _ start: off_t, _ length: off_t) -> Int32 {
        script.fault(Call(kind: .punch, position: start)).flatMap { failure($0) }
            ?? kernel.punch(descriptor, start, length)
    }

    func control(_ descriptor: Int32, _ command: Int32, _ lock: inout flock) -> Int32 {
        script.state.withLock { $0.locks }.flatMap { failure(.error($0)) } ?? kernel.control(descriptor, command, &lock)
    }

    func lockWhole(_ descriptor: Int32, _ operation: Int32) -> Int32 {
        script.state.withLock { $0.wholeLocks }.flatMap { failure(.error($0)) }
            ?? kernel.lockWhole(descriptor, operation)
    }
}
