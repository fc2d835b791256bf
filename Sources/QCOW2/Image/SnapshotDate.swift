// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// A moment, as the snapshot table stores it: up to 2106.
public struct SnapshotDate: Hashable, Sendable {
    /// Seconds since 1970, UTC.
    public var seconds: UInt32
    /// Nanoseconds within the second.
    public var nanoseconds: UInt32

    /// A moment in UTC.
    public init(seconds: UInt32, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    /// The system clock's time.
    public static var now: SnapshotDate {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return SnapshotDate(
            seconds: UInt32(clamping: time.tv_sec), nanoseconds: UInt32(clamping: time.tv_nsec))
    }
}
