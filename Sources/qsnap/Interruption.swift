// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Synchronization

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// Ctrl-C and its like: an operation is told to stop, and the image is left in its old state or its new one.
enum Interruption {
    /// The signal that came, or 0.
    private static let caught = Atomic<Int32>(0)

    static var signal: Int32 { caught.load(ordering: .relaxed) }

    /// From now on, a first signal asks for the end; a second one of its kind ends the process at once, which is as
    /// safe as pulling the plug.
    static func catchSignals() {
        // Whoever started us may have left the signals blocked.
        var all = sigset_t()
        _ = unsafe sigemptyset(&all)
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            _ = unsafe sigaddset(&all, signal)
            var action = sigaction()
            #if canImport(Darwin)
                unsafe action.__sigaction_u.__sa_handler = { Interruption.caught.store($0, ordering: .relaxed) }
            #else
                unsafe action.__sigaction_handler.sa_handler = { Interruption.caught.store($0, ordering: .relaxed) }
            #endif
            // System calls go on where they were.
            action.sa_flags = Int32(truncatingIfNeeded: UInt32(SA_RESTART) | UInt32(SA_RESETHAND))
            _ = unsafe sigaction(signal, &action, nil)
        }
        _ = unsafe sigprocmask(SIG_UNBLOCK, &all, nil)
    }

    /// The end of a command that a signal interrupted, if one did.
    static func failure(_ sentence: String) -> Failure? {
        let signal = signal
        return signal == 0 ? nil : Failure("Interrupted: \(sentence)", status: 128 + signal)
    }
}
