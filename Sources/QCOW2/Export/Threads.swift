// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Threads of the operating system that live for one call.
enum Threads {
    /// How many threads the processor runs at once.
    static var processorCount: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    private final class Job: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Runs `body` on as many new threads as can be had, up to `count`, and `meanwhile` on this one; returns when all
    /// have.
    ///
    /// `meanwhile` learns how many threads were started.
    static func run(_ count: Int, _ body: @Sendable () -> Void, meanwhile: (_ startedCount: Int) -> Void) {
        withoutActuallyEscaping(body) { body in
            let job = Job(body)
            var threads: [pthread_t] = []
            for _ in 0..<count {
                // SAFETY: the thread takes over the reference that it is given; if there is none, we take it back.
                let argument = unsafe Unmanaged.passRetained(job)
                guard let thread = unsafe start(argument.toOpaque()) else {
                    unsafe argument.release()
                    break
                }
                threads.append(thread)
            }
            meanwhile(threads.count)
            // No thread outlives this, so the body doesn't escape.
            for thread in threads { _ = pthread_join(thread, nil) }
        }
    }

    private static func start(_ argument: UnsafeMutableRawPointer) -> pthread_t? {
        #if canImport(Darwin)
            var thread: pthread_t?
            let result = unsafe pthread_create(&thread, nil, { unsafe Threads.main($0) }, argument)
            return result == 0 ? thread : nil
        #else
            var thread = pthread_t()
            let result = unsafe pthread_create(
                &thread, nil, { argument in unsafe argument.flatMap { unsafe Threads.main($0) } }, argument)
            return result == 0 ? thread : nil
        #endif
    }

    private static func main(_ argument: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer? {
        unsafe Unmanaged<Job>.fromOpaque(argument).takeRetainedValue().body()
        return nil
    }
}

/// A lock with a condition to wait for.
@safe final class Monitor: Sendable {
    // SAFETY: both are made before anybody else knows the monitor, freed after everybody has forgotten it, and
    // otherwise only used by the system's own thread-safe functions.
    private nonisolated(unsafe) let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private nonisolated(unsafe) let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    init() {
        unsafe mutex.initialize(to: pthread_mutex_t())
        unsafe condition.initialize(to: pthread_cond_t())
        _ = unsafe pthread_mutex_init(mutex, nil)
        _ = unsafe pthread_cond_init(condition, nil)
    }

    deinit {
        _ = unsafe pthread_cond_destroy(condition)
        _ = unsafe pthread_mutex_destroy(mutex)
        unsafe condition.deallocate()
        unsafe mutex.deallocate()
    }

    /// Runs `body` while no other thread runs one.
    func locked<Result>(_ body: () -> Result) -> Result {
        _ = unsafe pthread_mutex_lock(mutex)
        defer { _ = unsafe pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Lets others in until something was signalled; only inside ``locked(_:)``.
    func wait() { _ = unsafe pthread_cond_wait(condition, mutex) }

    /// Wakes everybody who waits.
    func signal() { _ = unsafe pthread_cond_broadcast(condition) }
}
