// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// The version of qemu-img whose words and layouts are printed.
struct QemuVersion: Comparable {
    let major: Int
    let minor: Int

    /// The environment variable that chooses the version.
    static let variable = "QSNAP_QEMU_IMG_VERSION"
    static let standard = QemuVersion(major: 7, minor: 2)

    /// The `Child node` block of `info`.
    static let showsChildNodes = QemuVersion(major: 8, minor: 0)
    /// `map --output=json` says what is compressed, and failures to create a snapshot come without a number.
    static let saysCompressed = QemuVersion(major: 8, minor: 2)
    /// Wide columns in lists of snapshots.
    static let hasWideTable = QemuVersion(major: 9, minor: 0)
    /// Help for each command, long options, and complaints in the C library's words.
    static let hasCommandHelp = QemuVersion(major: 10, minor: 1)

    static func < (lhs: Self, rhs: Self) -> Bool { (lhs.major, lhs.minor) < (rhs.major, rhs.minor) }

    /// Reads `9.0`, or `9.0.1`; nothing and an empty text are the standard version.
    init?(parsing text: String?) {
        guard let text, !text.isEmpty else {
            self = .standard
            return
        }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count >= 2, let major = parts[0], let minor = parts[1], (6...99).contains(major), minor >= 0 else {
            return nil
        }
        self.init(major: major, minor: minor)
    }

    init(major: Int, minor: Int) {
        self.major = major
        self.minor = minor
    }
}
