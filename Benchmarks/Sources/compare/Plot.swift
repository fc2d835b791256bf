// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The figures as a picture: a pair of bars for each row on a logarithmic scale, and growth with the size of the disk.
struct Plot {
    let text: String

    private static let left = 380.0
    private static let width = 980.0
    private static let rowHeight = 30.0
    private static let colours = ["#d2691e", "#708090"]

    init(_ results: [Result]) {
        let growing = results.filter { $0.growth != nil }.sorted { ($0.growth ?? 0) < ($1.growth ?? 0) }
        let barsHeight = Double(results.count) * Self.rowHeight + 60
        let height = barsHeight + (growing.count > 1 ? 320 : 0)
        var parts = [
            """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(Self.width)" height="\(height)" font-family="sans-serif" \
            font-size="12"><rect width="100%" height="100%" fill="white"/>
            """,
            Self.label(Self.left, 20, "median seconds: qsnap (brown) and qemu-img (grey), logarithmic scale"),
        ]
        for (index, result) in results.enumerated() {
            let y = 40 + Double(index) * Self.rowHeight
            parts.append(Self.label(Self.left - 8, y + 14, result.name, anchor: "end"))
            for (side, seconds) in [result.ours.seconds, result.theirs.seconds].enumerated() {
                let end = Self.x(seconds)
                let cut = side == 1 && result.theirs.wasCut ? "more than " : ""
                parts.append(
                    """
                    <rect x="\(Self.left)" y="\(y + Double(side) * 11)" width="\(end - Self.left)" height="10" \
                    fill="\(Self.colours[side])"/>
                    """)
                parts.append(Self.label(end + 4, y + Double(side) * 11 + 9, cut + Result.time(seconds)))
            }
        }
        if growing.count > 1 { parts += Self.chart(growing, top: barsHeight) }
        text = (parts + ["</svg>\n"]).joined(separator: "\n")
    }

    /// A hundred microseconds at the left, a thousand seconds at the right.
    private static func x(_ seconds: Double) -> Double {
        left + max(1, (decades(seconds) + 4) / 7 * (width - left - 110))
    }

    /// The base-10 logarithm, by halving: this file needs no mathematics library for one picture.
    private static func decades(_ number: Double) -> Double {
        let exponent = Double(number.exponent)
        let significand = number.significand
        // log2 of 1...2 as a polynomial that is exact at both ends; its error of 0.01 can't be seen.
        let fraction = (significand - 1) * (1 + 0.344 * (2 - significand))
        return (exponent + fraction) * 0.301_029_995_663_981
    }

    /// Seconds over gibibytes, both logarithmic.
    private static func chart(_ results: [Result], top: Double) -> [String] {
        var parts = [label(left, top + 20, "create: median seconds over the size of the disk, both scales logarithmic")]
        func place(_ result: Result, _ seconds: Double) -> (x: Double, y: Double) {
            let x = left + (decades(result.growth ?? 1) - 1.5) / 2.5 * (width - left - 110)
            return (x, top + 290 - (decades(seconds) + 3) / 5 * 250)
        }
        for side in 0..<2 {
            var points: [String] = []
            for result in results {
                let seconds = side == 0 ? result.ours.seconds : result.theirs.seconds
                let (x, y) = place(result, seconds)
                points.append("\(x),\(y)")
                parts.append("<circle cx=\"\(x)\" cy=\"\(y)\" r=\"4\" fill=\"\(colours[side])\"/>")
                parts.append(label(x + 6, y + (side == 0 ? 14 : -6), Result.time(seconds)))
                if side == 0 { parts.append(label(x, top + 310, "\(Int(result.growth ?? 0)) GiB", anchor: "middle")) }
            }
            parts.append(
                """
                <polyline points="\(points.joined(separator: " "))" fill="none" stroke="\(colours[side])" \
                stroke-width="2"/>
                """)
        }
        return parts
    }

    private static func label(_ x: Double, _ y: Double, _ text: String, anchor: String = "start") -> String {
        "<text x=\"\(x)\" y=\"\(y)\" text-anchor=\"\(anchor)\">\(text)</text>"
    }
}
