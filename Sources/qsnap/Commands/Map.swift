// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import QCOW2

extension QSnap {
    struct Map: ReadCommand {
        static let configuration = CommandConfiguration(
            commandName: "map",
            abstract: "Show where each part of the disk is stored, in one of its states.",
            discussion: "Reads no data. Without SNAPSHOT, the active state.")

        @OptionGroup var reading: DiskReadingOptions

        @Argument(help: "The snapshot's ID or name.")
        var snapshot: String?

        func run() throws {
            let reader = try reading.openReader()
            let view = try reader.view(of: reading.state(snapshot))
            // Disks of millions of extents are printed as they are found.
            var text = reading.json ? jsonStart(view) : ""
            let rows = ["START", "LENGTH", "KIND", "FILE OFFSET", "FILE"]
            if !reading.json { text += Self.line(rows) }
            var isFirst = true
            try reading.perform("the map is incomplete.") { _ in
                var cursor = view.extents()
                while let extent = try cursor.next() {
                    text +=
                        reading.json ? (isFirst ? "\n" : ",\n") + Self.json(extent) : Self.line(columns(extent, view))
                    isFirst = false
                    guard text.utf8.count > 1 << 16 else { continue }
                    try Console.write(text)
                    text = ""
                    if Interruption.signal != 0 { throw QCOW2Error(.cancelled, "") }
                }
            }
            if reading.json { text += isFirst ? "]\n}\n" : "\n  ]\n}\n" }
            try Console.write(text)
        }

        private func jsonStart(_ view: DiskView) -> String {
            let members = JSON.object([
                ("image", .string(reading.image)), ("snapshot", snapshot.map { .string($0) } ?? .null),
                ("virtual-size", .number(view.virtualSize)), ("files", .array(view.fileNames.map { .string($0) })),
            ])
            return String(members.text().dropLast(2)) + ",\n  \"extents\": ["
        }

        /// One line with the keys of `qemu-img map`, and the kind.
        private static func json(_ extent: Extent) -> String {
            let isData = extent.kind == .data || extent.kind == .compressed
            var text = "    { \"start\": \(extent.start.rawValue), \"length\": \(extent.byteCount), "
            text += "\"depth\": \(extent.depth), \"kind\": \"\(extent.kind.rawValue)\", "
            text += "\"present\": \(extent.kind != .unallocated), \"zero\": \(extent.readsAsZeros), "
            text += "\"data\": \(isData), \"compressed\": \(extent.kind == .compressed)"
            if let offset = extent.hostOffset { text += ", \"offset\": \(offset.rawValue)" }
            return text + " }"
        }

        private func columns(_ extent: Extent, _ view: DiskView) -> [String] {
            let isInFile = extent.kind == .data || extent.kind == .compressed || extent.kind == .zero
            return [
                extent.start.description, "0x\(String(extent.byteCount, radix: 16))", extent.kind.rawValue,
                extent.hostOffset?.description ?? "-", isInFile ? file(view, extent.depth) : "-",
            ]
        }

        /// The path that the user gave, or one that an image names.
        private func file(_ view: DiskView, _ depth: Int) -> String {
            depth == 0 ? printable(view.fileNames[depth]) : cell(view.fileNames[depth].utf8)
        }

        private static func line(_ columns: [String]) -> String {
            let widths = [18, 18, 12, 18, 0]
            return zip(columns, widths).map { $0 + String(repeating: " ", count: max(0, $1 - $0.count)) }.joined()
                + "\n"
        }
    }
}

extension Extent {
    fileprivate var readsAsZeros: Bool { kind == .zero || kind == .unallocated }
}
