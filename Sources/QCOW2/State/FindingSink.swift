// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts findings by code, and hands the first ones of each to whoever asked for them.
///
/// Nothing is kept but the counts, so a million findings take no more memory than one.
final class FindingSink {
    /// What a reading doesn't put up with.
    enum Tolerance {
        /// Whatever forbids to open the image is thrown: for those who trust what they read.
        case strict
        /// A header without which nothing else means anything is thrown, and what can't be read from the file.
        case soundHeader
        /// Nothing is thrown that can be passed over: for those who show what there is.
        case everything
    }

    let tolerance: Tolerance
    /// The first thing that would have been thrown by a strict reading.
    private(set) var refusal: QCOW2Error?
    private let limit: UInt64
    private let report: (Finding) -> Void
    private var known: [FindingRule: Tally] = [:]
    /// The rule that was noted last, and how often: kept apart because findings of one kind mostly follow each other.
    private var last = (rule: FindingRule.headerFieldInvalid, tally: Tally())

    /// How often something was found.
    struct Tally {
        fileprivate(set) var count: UInt64 = 0
        /// How many findings were handed out, and how often it was found in these.
        fileprivate(set) var (handedOut, reported): (UInt64, UInt64) = (0, 0)
    }

    init(
        limitPerCode limit: Int, tolerating tolerance: Tolerance = .soundHeader, _ report: @escaping (Finding) -> Void
    ) {
        self.limit = UInt64(max(0, limit))
        self.report = report
        self.tolerance = tolerance
    }

    /// One for an opening that refuses the image for the first finding that the format forbids.
    static var strict: FindingSink { FindingSink(limitPerCode: 0, tolerating: .strict) { _ in } }

    /// Notes a finding, or `count` neighbouring ones as one; `message` is only made when it is handed out.
    func add(
        _ rule: FindingRule, at offset: HostOffset? = nil, in table: @autoclosure () -> String? = nil,
        index: UInt64? = nil, count: UInt64 = 1, _ message: @autoclosure () -> String
    ) {
        if rule != last.rule {
            known[last.rule] = last.tally
            last = (rule, known[rule] ?? Tally())
        }
        last.tally.count &+= count
        guard last.tally.handedOut < limit else { return }
        last.tally.handedOut += 1
        last.tally.reported &+= count
        report(Finding(rule, message(), at: offset, in: table(), index: index, count: count))
    }

    /// Notes what is wrong with an image's content, or throws it if the image is to be opened strictly and that
    /// forbids it.
    func note(
        _ rule: FindingRule, _ error: QCOW2Error, in table: @autoclosure () -> String? = nil, index: UInt64? = nil
    ) throws(QCOW2Error) {
        if rule.forbidsOpening {
            if tolerance == .strict { throw error }
            if refusal == nil { refusal = error }
        }
        add(rule, at: error.offset, in: table(), index: index, error.message)
    }

    /// Notes what leaves the rest without a meaning, or throws it if anything is to be trusted.
    func refuse(_ rule: FindingRule, _ error: QCOW2Error) throws(QCOW2Error) {
        // A strict reading would have stopped at what was found first.
        guard tolerance == .everything else { throw refusal ?? error }
        try note(rule, error, in: rule == .headerFieldInvalid ? "header" : nil)
    }

    func count(of rule: FindingRule) -> UInt64 { tally(of: rule).count }

    private func tally(of rule: FindingRule) -> Tally {
        rule == last.rule ? last.tally : known[rule] ?? Tally()
    }

    /// What was found, the worst first.
    var tallies: [(rule: FindingRule, tally: Tally)] {
        FindingRule.allCases.map { ($0, tally(of: $0)) }.filter { $0.1.count > 0 }
            .sorted { $0.0.severity > $1.0.severity }
    }
}
