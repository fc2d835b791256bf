// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2
import QCOW2Testing

/// Says of a crash state which of an operation's whole states it is, or what is wrong with it.
///
/// A state that agrees with a whole one in every byte that this one refers to is that one, to everybody who follows
/// references: it opens, lists, reads and counts alike. Comparing these bytes is quick, so that very many states can be
/// judged. Every so many of them are opened, read and counted all the same, and so is every one that agrees with none.
public struct CrashJudge {
    /// What is made of a state.
    public enum Verdict: Sendable {
        /// It is the whole state with this index.
        case whole(Int)
        /// It is none, or not clean.
        case broken(String)
    }

    private struct WholeState {
        let bytes: [UInt8]
        /// The file's length; `bytes` go on with zeros up to the end of a cluster.
        let byteCount: Int
        let ranges: [Range<Int>]
        let contents: Contents

        init(_ image: [UInt8]) throws {
            let count = ConsistencyCount(image)
            guard count.findings.isEmpty else {
                throw Tool.Failed(description: "not clean to begin with: \(count.findings.joined(separator: "; "))")
            }
            ranges = count.referencedRanges
            contents = try Contents(of: image)
            byteCount = image.count
            bytes = image
        }

        func isSameFootprint(_ state: [UInt8]) -> Bool {
            // The last cluster may be cut off by the end of the file: a longer state is left to the full reading then.
            let isCutOff = !isAligned && ranges.last?.upperBound == byteCount
            guard !isCutOff || state.count == byteCount else { return false }
            return ranges.allSatisfy { isSame(state, bytes, in: $0) }
        }

        private var isAligned: Bool {
            let clusterBits = Int(bytes[23])
            return byteCount & (1 << clusterBits - 1) == 0
        }
    }

    private let wholes: [WholeState]
    private let interval: Int
    private var number = 0
    /// How many states were opened, read in full and counted.
    public private(set) var readCount = 0

    /// A judge who knows the whole states.
    ///
    /// - Parameters:
    ///   - images: The states that may be found: before, between and after the operations.
    ///   - interval: Of how many states one is read in full although a comparison would do.
    /// - Throws: When one of the images isn't clean or can't be read.
    public init(_ images: [[UInt8]], readingEvery interval: Int) throws {
        wholes = try images.map { try WholeState($0) }
        self.interval = max(1, interval)
    }

    /// Whether no two of the whole states look alike to a user; otherwise verdicts mean nothing.
    public var canTellApart: Bool {
        wholes.indices.allSatisfy { index in wholes[..<index].allSatisfy { $0.contents != wholes[index].contents } }
    }

    /// Judges a state.
    public mutating func judge(_ state: [UInt8]) -> Verdict {
        number += 1
        let match = wholes.firstIndex { $0.isSameFootprint(state) }
        if let match, number % interval != 0 { return .whole(match) }
        readCount += 1
        let contents: Contents
        do { contents = try Contents(of: state) } catch { return .broken("it can't be read: \(error)") }
        guard let found = wholes.firstIndex(where: { $0.contents == contents }) else {
            return .broken("neither the old nor the new contents")
        }
        if let match, match != found { return .broken("comparing and reading disagree: \(match), \(found)") }
        let findings = ConsistencyCount(state).findings
        return findings.isEmpty ? .whole(found) : .broken(findings.joined(separator: "; "))
    }

    /// What a user sees of a whole state.
    public func contents(_ index: Int) -> Contents { wholes[index].contents }
}
