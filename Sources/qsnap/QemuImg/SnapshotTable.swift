// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#endif

/// The table of snapshots that `snapshot -l` and `info` print; nothing without snapshots.
func snapshotTable(_ snapshots: [Snapshot], _ version: QemuVersion) -> ByteText {
    guard !snapshots.isEmpty else { return "" }
    let isWide = version >= .hasWideTable
    var text: ByteText = "Snapshot list:\n"
    text +=
        isWide
        ? "ID      TAG               VM_SIZE                DATE        VM_CLOCK     ICOUNT\n"
        : "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n"
    for snapshot in snapshots { text += isWide ? wideRow(snapshot) : row(snapshot) }
    return text
}

private func row(_ snapshot: Snapshot) -> ByteText {
    """
    \(ByteText(snapshot.shownID).padded(9)) \(ByteText(snapshot.shownName).padded(16)) \
    \(ByteText(Array(sizeText(snapshot.vmStateSize).utf8)).padded(8, right: true))\
    \(ByteText(Array(snapshot.date.localText.utf8)).padded(20, right: true))\
    \(ByteText(Array(clock(snapshot.vmClock).utf8)).padded(13, right: true))\
    \(ByteText(snapshot.icountText(missing: "")).padded(11, right: true))\n
    """
}

private func wideRow(_ snapshot: Snapshot) -> ByteText {
    let hours = String(snapshot.vmClock / 3_600_000_000_000)
    let zeros = String(repeating: "0", count: max(0, 4 - hours.count))
    let clockText = zeros + hours + clock(snapshot.vmClock).drop { $0 != ":" }
    return """
        \(ByteText(snapshot.shownID).padded(7)) \(ByteText(snapshot.shownName).padded(16)) \
        \(ByteText(Array(sizeText(snapshot.vmStateSize).utf8)).padded(8, right: true)) \
        \(ByteText(Array(snapshot.date.localText.utf8)).padded(19, right: true)) \
        \(ByteText(Array(clockText.utf8)).padded(15, right: true)) \
        \(ByteText(snapshot.icountText(missing: "--")).padded(10, right: true))\n
        """
}

extension Snapshot {
    /// What QEMU sees of the ID: 127 bytes, up to a zero.
    var shownID: [UInt8] { Array(idBytes.prefix { $0 != 0 }.prefix(127)) }
    /// What QEMU sees of the name: 255 bytes, up to a zero.
    var shownName: [UInt8] { Array(nameBytes.prefix { $0 != 0 }.prefix(255)) }

    fileprivate func icountText(missing: String) -> [UInt8] {
        Array((icount.map { String(Int64(bitPattern: $0)) } ?? missing).utf8)
    }
}

/// A number of bytes as qemu-img shows it: three significant digits below 1000 of the largest unit that allows that.
func sizeText(_ byteCount: UInt64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
    // The largest power of two below the number times 1024/1000, as the unit changes at 1000 and not at 1024.
    let scaled = Double(byteCount) / (1000.0 / 1024.0)
    let unit = scaled < 1 ? 0 : min(Int(scaled.exponent) / 10, units.count - 1)
    let number = Double(byteCount) / Double(UInt64(1) << UInt64(10 * unit))
    return formatted("%0.3g", number) + " \(units[unit])B"
}

/// A number as C's `printf` prints it.
func formatted(_ format: String, _ number: Double) -> String {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer in
        // SAFETY: vsnprintf ends the text within the capacity, and the formats here take one number.
        unsafe buffer.initialize(repeating: 0)
        guard let text = buffer.baseAddress else { return "" }
        _ = unsafe withVaList([number]) { unsafe vsnprintf(text, buffer.count, format, $0) }
        return unsafe String(cString: text)
    }
}
