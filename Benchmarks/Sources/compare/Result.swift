// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// What measuring a row gave.
struct Result: Codable, Sendable {
    let name: String
    let growth: Double?
    /// The order of the rows in a table.
    var position = 0
    var ours: Side
    var theirs: Side

    /// One program's figures: medians.
    struct Side: Codable, Sendable {
        let seconds: Double
        /// Zero if not measured.
        var peakByteCount = 0
        let runs: Int
        /// Whether it took longer than it was allowed to.
        let wasCut: Bool
        var calls: SystemCalls?

        init(_ measurements: [Measurement]) {
            let sorted = measurements.map(\.seconds).sorted()
            seconds = sorted.isEmpty ? 0 : sorted[sorted.count / 2]
            runs = measurements.count
            wasCut = measurements.contains { $0.wasCut }
        }
    }

    init(_ row: Row, isCold: Bool, _ ours: [Measurement], _ theirs: [Measurement]) {
        name = row.name + (isCold ? ", cold cache" : "")
        growth = isCold ? nil : row.growth
        self.ours = Side(ours)
        self.theirs = Side(theirs)
    }

    var ratio: Double { theirs.seconds / ours.seconds }

    static let heading = """
        | Work | qsnap | qemu-img | ratio | peak memory, ours | theirs | written, ours | theirs | flushes, ours | theirs |
        |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
        """

    /// The row of a table in Markdown.
    var line: String {
        let more = theirs.wasCut ? "more than " : ""
        let cells = [
            name, Self.time(ours.seconds), more + Self.time(theirs.seconds),
            more + (ratio < 10 ? Self.decimal(ratio, 2) : Self.decimal(ratio, 0)) + " ×",
            Self.mebibytes(ours.peakByteCount), Self.mebibytes(theirs.peakByteCount),
            Self.text(ours.calls) { Self.mebibytes($0.writtenByteCount) },
            Self.text(theirs.calls) { Self.mebibytes($0.writtenByteCount) },
            Self.text(ours.calls) { "\($0.flushCount)" }, Self.text(theirs.calls) { "\($0.flushCount)" },
        ]
        return "| " + cells.joined(separator: " | ") + " |"
    }

    private static func text(_ calls: SystemCalls?, _ body: (SystemCalls) -> String) -> String {
        calls.map(body) ?? "–"
    }

    static func time(_ seconds: Double) -> String {
        seconds < 1 ? decimal(seconds * 1000, seconds < 0.1 ? 1 : 0) + " ms" : decimal(seconds, 2) + " s"
    }

    private static func mebibytes(_ byteCount: Int) -> String {
        byteCount == 0 ? "–" : decimal(Double(byteCount) / 1_048_576, 1) + " MiB"
    }

    static func decimal(_ number: Double, _ digits: Int) -> String {
        let scale = (0..<digits).reduce(1.0) { scale, _ in scale * 10 }
        let scaled = (number * scale).rounded()
        guard digits > 0 else { return "\(Int(scaled))" }
        let fraction = String(Int(scaled) % Int(scale))
        return "\(Int(scaled) / Int(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
