// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// Counts findings by code, and hands the first ones of each to whoever asked for them.
///
/// Nothing is kept but the counts, so a million findings take no more memory than one.
final class FindingSink {
    /// Whether a finding that forbids to open the image is thrown instead.
    let isStrict: Bool
    private let limit: UInt64
    private let report: (Finding) -> Void
    private var counts: [CheckRule: UInt64] = [:]
    /// The rule that was noted last, and how often: kept apart because findings of one kind mostly follow each other.
    private var last = (rule: CheckRule.headerFieldInvalid, count: UInt64(0))

    init(limitPerCode limit: Int, _ report: @escaping (Finding) -> Void) {
        self.limit = UInt64(max(0, limit))
        self.report = report
        isStrict = false
    }

    private init() {
        limit = 0
        report = { _ in }
        isStrict = true
    }

    /// One for an opening that refuses the image for the first finding that the format forbids.
    static var strict: FindingSink { FindingSink() }

    /// Notes a finding; `message` is only made when it is handed out.
    func add(
        _ rule: CheckRule, at offset: HostOffset? = nil, in table: @autoclosure () -> String? = nil,
        index: UInt64? = nil, _ message: @autoclosure () -> String
    ) {
        if rule != last.rule {
            counts[last.rule] = last.count
            last = (rule, counts[rule] ?? 0)
        }
        let count = last.count
        last.count = count &+ 1
        guard count < limit else { return }
        report(Finding(rule.code, rule.severity, message(), at: offset, in: table(), index: index))
    }

    /// Notes what is wrong with an image's content, or throws it if the image is to be opened strictly and that
    /// forbids it.
    func note(
        _ rule: CheckRule, _ error: QCOW2Error, in table: @autoclosure () -> String? = nil, index: UInt64? = nil
    ) throws(QCOW2Error) {
        if isStrict, rule.forbidsOpening { throw error }
        add(rule, at: error.offset, in: table(), index: index, error.message)
    }

    func count(of rule: CheckRule) -> UInt64 { rule == last.rule ? last.count : counts[rule] ?? 0 }

    /// The counts by code, the worst first.
    func tallies() -> [CheckReport.Tally] {
        CheckRule.allCases.compactMap { rule in
            let count = count(of: rule)
            guard count > 0 else { return nil }
            return CheckReport.Tally(
                code: rule.code, severity: rule.severity, count: count, reportedCount: min(count, limit))
        }.sorted { $0.severity > $1.severity }
    }
}
