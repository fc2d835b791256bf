// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A piece of work that both sides do on copies of the same image.
struct Row: Sendable {
    let name: String
    let specimen: Specimen
    /// The arguments of our command; `@` stands for the image, `%` for a file that is made from it.
    let ours: [String]
    /// The arguments of as many `qemu-img` runs as it takes.
    let theirs: [[String]]
    /// Whether the work changes the image, so that each run needs a copy.
    var writes = true
    /// Whether a run is so short that it takes many to know how long it is.
    var isQuick = false
    /// Bytes of the virtual disk, for rows that are part of the chart of growth.
    var growth: Double?

    private static func create(_ specimen: Specimen, growth: Double? = nil) -> Row {
        Row(
            name: "create, \(specimen.name)", specimen: specimen, ours: ["create", "@", "new"],
            theirs: [["snapshot", "-c", "new", "@"]], growth: growth)
    }

    private static func check(_ specimen: Specimen) -> Row {
        Row(
            name: "check, \(specimen.name)", specimen: specimen, ours: ["check", "@"], theirs: [["check", "@"]],
            writes: false)
    }

    private static func applyAndDelete(_ base: Specimen) -> [Row] {
        let specimen = Specimen.withSnapshots(1, of: base)
        return [
            Row(
                name: "apply, \(base.name)", specimen: specimen, ours: ["apply", "@", "s1"],
                theirs: [["snapshot", "-a", "s1", "@"]]),
            Row(
                name: "delete, \(base.name)", specimen: specimen, ours: ["delete", "@", "s1"],
                theirs: [["snapshot", "-d", "s1", "@"]]),
        ]
    }

    private static func verbs(_ base: Specimen, growth: Double? = nil) -> [Row] {
        [create(base, growth: growth)] + applyAndDelete(base)
    }

    /// A state written to a file of its own.
    private static func export(_ base: Specimen, _ ours: [String] = [], _ theirs: [String] = ["-O", "raw"]) -> Row {
        Row(
            name: (["export"] + ours).joined(separator: " ") + ", \(base.name)", specimen: .withSnapshots(1, of: base),
            // As qemu-img, which leaves the file in the page cache.
            ours: ["export", "@", "s1", "%", "--force", "--no-sync"] + ours,
            theirs: [["convert", "-l", "s1"] + theirs + ["@", "%"]], writes: false)
    }

    /// Whether a file is made from the image.
    var makesFile: Bool { ours.contains("%") }

    /// What qemu-img has nothing like, beside its check, which walks over the same tables.
    private static func readings(_ base: Specimen) -> [Row] {
        let specimen = Specimen.withSnapshots(2, of: base)
        let check = [["check", "@"]]
        return [
            Row(
                name: "usage, \(base.name) (beside check)", specimen: specimen, ours: ["usage", "@"], theirs: check,
                writes: false),
            Row(
                name: "diff, \(base.name) (beside check)", specimen: specimen, ours: ["diff", "@", "s1"],
                theirs: check, writes: false),
            Row(
                name: "diff with zeros, \(base.name) (beside check)", specimen: specimen,
                ours: ["diff", "@", "--full"], theirs: check, writes: false),
        ]
    }

    static let all: [Row] = {
        let tebibyte = 1024.0
        var rows = verbs(.sequential("1T"), growth: tebibyte)
        rows.append(check(.sequential("1T")))
        rows += verbs(.sequential("64G"), growth: 64)
        rows.append(check(.shuffled("64G")))
        rows += verbs(.shuffled("64G"))
        rows.append(create(.sequential("256G"), growth: 256))
        rows.append(create(.sequential("4T"), growth: 4 * tebibyte))
        let many = Specimen.withSnapshots(20, of: .sequential("256G"))
        rows.append(
            Row(
                name: "delete 20 snapshots, 256G", specimen: many, ours: ["delete", "@", "--all"],
                theirs: (1...20).map { ["snapshot", "-d", "s\($0)", "@"] }))
        rows += verbs(.compressed("1G", 1 << 30))
        rows += verbs(.sequential("16G", "cluster_size=4k"))
        // Every width with either kind of L2 entry, and the smallest and largest clusters: 16 layouts.
        for entries in ["off", "on"] {
            for bits in [2, 4, 8, 16, 32, 64] {
                rows.append(create(.sequential("16G", "extended_l2=\(entries),refcount_bits=\(bits)")))
            }
        }
        rows.append(create(.sequential("512M", "cluster_size=512")))
        rows.append(create(.sequential("512G", "cluster_size=2M")))
        rows.append(create(.sequential("16G", "cluster_size=16k,extended_l2=on")))
        rows.append(create(.sequential("16G", "cluster_size=4k,compat=0.10")))
        rows.append(export(.filled("64G", every: 16)))
        rows.append(export(.compressed("1G", 1 << 30)))
        rows.append(
            export(.compressed("1G", 1 << 30), ["--format=qcow2", "--compress"], ["-c", "-O", "qcow2"]))
        let small = Specimen.withSnapshots(1, of: .sequential("64M"))
        rows.append(
            Row(
                name: "list", specimen: small, ours: ["list", "@"], theirs: [["snapshot", "-l", "@"]], writes: false,
                isQuick: true))
        rows += readings(.sequential("1T"))
        rows += readings(.shuffled("64G"))
        return rows
    }()
}
