// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if os(Linux)
    import CSandbox
#endif
#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// A jail for commands that only read.
///
/// Once their files are open, they can start no program, make no connection, change nothing, and open nothing but what
/// they still need. So a fault in what reads an image leads nowhere.
///
/// Two means of Linux: Landlock, which knows paths, and a seccomp filter, which knows system calls. Where the kernel or a
/// container refuses one, the command runs without it.
enum Sandbox {
    /// What may still be opened, for reading.
    enum Opening {
        case nothing
        /// These files, and all in these directories.
        case files([String])
        case anything
    }

    /// Locks this process in for good; before it has other threads.
    ///
    /// - Returns: What isn't in force, in sentences.
    static func enter(_ opening: Opening) -> [String] {
        #if os(Linux)
            #if DEBUG
                // A measured process writes its counters at its end.
                if unsafe getenv("LLVM_PROFILE_FILE") != nil, unsafe getenv("QSNAP_SANDBOX_TEST") == nil { return [] }
            #endif
            // Read now: it will be asked for when dates are printed.
            tzset()
            guard qsnap_no_new_privileges() == 0 else { return ["The kernel has no sandbox"] }
            var missing: [String] = []
            let landlock = restrictPaths(opening)
            var mayOpen: Int32 = 1
            if case .nothing = opening {
                mayOpen = 0
            } else if landlock != 0 {
                missing.append("The kernel has no Landlock (error \(-landlock)): any file could be read")
            }
            let seccomp = qsnap_seccomp(mayOpen)
            if seccomp != 0 {
                missing.append("The kernel takes no seccomp filter (error \(-seccomp)): programs could be started")
            }
            #if DEBUG
                if unsafe getenv("QSNAP_SANDBOX_TEST") != nil { tryEverything() }
            #endif
            return missing
        #else
            return ["There is no sandbox on this system"]
        #endif
    }

    #if os(Linux)
        /// Forbids, by path, whatever isn't reading of the files that may be opened; returns a negative error number.
        private static func restrictPaths(_ opening: Opening) -> Int32 {
            let rules = qsnap_landlock_create()
            guard rules >= 0 else { return rules }
            let paths =
                switch opening {
                case .nothing: [String]()
                case .files(let paths): paths
                case .anything: ["/"]
                }
            // One that isn't there can't be opened later, either.
            for path in paths { _ = unsafe qsnap_landlock_allow_reading(rules, path) }
            return qsnap_landlock_enforce(rules)
        }
    #endif

    #if DEBUG && os(Linux)
        /// For tests: tries what must fail, and says on standard error how it did.
        private static func tryEverything() {
            func say(_ what: String, _ result: Int32) {
                let error = errno
                let word = result >= 0 ? "allowed" : error == EACCES || error == EPERM ? "refused" : "error \(error)"
                Console.writeError("sandbox: \(what): \(word)\n")
            }
            for path in ["/etc/passwd", "/proc/self/status", "."] {
                errno = 0
                say("open \(path)", unsafe open(path, O_RDONLY | O_CLOEXEC))
            }
            if let path = unsafe getenv("QSNAP_SANDBOX_TEST_FILE").map({ unsafe String(cString: $0) }) {
                say("open FILE", unsafe open(path, O_RDONLY | O_CLOEXEC))
                say("write FILE", unsafe open(path, O_RDWR | O_CLOEXEC))
                say("create", unsafe open(path + ".new", O_WRONLY | O_CREAT, 0o600))
                say("unlink", unsafe unlink(path))
                say("rename", unsafe rename(path, path + ".old"))
            }
            say("socket", socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
            say("local socket", socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
            errno = -qsnap_try_program()
            say("program", -1)
            say("fork", Int32(-1 * (qsnap_try_fork() < 0 ? 1 : 0)))
            say("kill", kill(1, 0))
        }
    #endif
}
