// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Foundation
internal import Synchronization

/// Counts what the tests tried, and says so when the test run ends: numbers that nobody prints are forgotten.
public enum TestTally {
    private static let counts = Mutex<[String: [String: Int]]>([:])

    private static let isPrinted: Void = {
        _ = atexit {
            let lines = TestTally.counts.withLock { subjects in
                subjects.sorted { $0.key < $1.key }.map { subject, counts in
                    "tally: \(subject): "
                        + counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
                }
            }
            FileHandle.standardError.write(Data((lines.joined(separator: "\n") + "\n").utf8))
        }
    }()

    /// Adds to a count, such as the crash states of one verb.
    public static func add(_ count: Int, to name: String, of subject: String) {
        _ = isPrinted
        counts.withLock { $0[subject, default: [:]][name, default: 0] += count }
    }
}
