// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Exports judged by QEMU's own tools.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct ExportInteropTests {
    static let layouts: [Layout] = [
        Layout(version: 2, clusterSize: 512), Layout(clusterSize: 4096, features: [.zstd]), Layout(),
        Layout(features: [.preallocated]), Layout(clusterSize: 2 << 20), Layout(features: [.extendedL2, .backing]),
    ]

    @Test("Every state is exported as qemu-img converts it, raw and as a clean image", arguments: layouts)
    func matrix(_ layout: Layout) throws {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: max(unit * 8, 3 << 20))
        let count = disk.active.count
        try disk.write([
            .pattern(0x11, at: 0, count: unit), .pattern(0x12, at: count / 2, count: 70000),
            .zeros(at: unit, count: unit / 2), .pattern(0x13, at: count - 512, count: 512),
        ])
        if !layout.features.contains(.preallocated) { try disk.write([.compressed(0x14, at: 2 * unit, count: unit)]) }
        try Tool.check("qemu-img", ["snapshot", "-c", "first", disk.path])
        disk.created("first")
        if layout.version == 3 { try disk.resize(to: count + 5 * 512) }
        try disk.write([.pattern(0x21, at: unit / 2, count: 65536)])

        let reader = try ImageReader(Image.open(disk.path, for: .reading), backing: .sameDirectory)
        for (state, expected) in [
            (DiskState.active, disk.active), (.snapshot(.name("first")), disk.snapshots["first"]),
        ] {
            let view = try reader.view(of: state)
            let raw = disk.folder.file("raw")
            var options = ExportOptions()
            options.replacesExisting = true
            try view.export(to: raw, options: options)
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
            #expect(isSame(bytes, try #require(expected)), "\(layout.testDescription), \(state)")
            for compression in [nil, CompressionType.deflate, .zstd] {
                options.format = .qcow2(compression: compression)
                let copy = disk.folder.file("copy.qcow2")
                try view.export(to: copy, options: options)
                try Tool.check("qemu-img", ["check", "-q", "-f", "qcow2", copy])
                let result = try Tool.check("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", copy, raw])
                #expect(result.contains("identical"), "\(layout.testDescription), \(state): \(result)")
                #expect(try Image.open(copy, for: .reading).virtualSize == UInt64(bytes.count))
                // The copy is an image like any other.
                try Tool.check("qemu-io", ["-f", "qcow2", "-c", "write -P 0x77 1000 70000", copy])
                try Tool.check("qemu-img", ["check", "-q", "-f", "qcow2", copy])
            }
        }
    }

    @Test("Clusters that were only set aside are not read, however many there are")
    func preallocated() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "64G"])
        try Tool.check("qemu-io", ["-f", "qcow2", "-c", "write -P 1 40G 4k", path])
        let start = ContinuousClock.now
        try ImageReader(Image.open(path, for: .reading)).view().export(to: folder.file("raw"))
        #expect(start.duration(to: .now) < .seconds(10))
        let result = try Tool.check("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", path, folder.file("raw")])
        #expect(result.contains("identical"))
    }
}

/// A machine's memory, exported and brought to life elsewhere.
@Suite(
    .enabled(
        if: Tool.isInstalled("qemu-system-x86_64") && Tool.isInstalled("qemu-img"),
        "needs qemu-system-x86 and qemu-utils"))
struct VMStateExportTests {
    @Test("A machine wakes up from exported VM state on an exported disk", arguments: [512, 65536])
    func machine(_ clusterSize: Int) throws {
        let folder = try TemporaryFolder()
        let path = folder.file("disk.qcow2")
        try Tool.check(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", path, "8M"])
        try run(
            path, ["-device", "loader,addr=0x1000,data=0x1234abcd,data-len=4"], ["savevm vm"], log: folder.file("log"))
        let view = try ImageReader(Image.open(path, for: .reading)).view(of: .snapshot(.name("vm")))
        try view.exportVMState(to: folder.file("state"))
        try view.export(to: folder.file("disk.raw"))
        let state = try Data(contentsOf: URL(fileURLWithPath: folder.file("state")))
        #expect(UInt64(state.count) == view.vmStateSize)
        #expect(state.prefix(4).elementsEqual("QEVM".utf8))
        // The state names its disk's contents only by the device, so the raw copy will do.
        let output = try run(
            folder.file("disk.raw"), ["-incoming", "exec:cat \(folder.file("state"))"], ["xp /1wx 0x1000"],
            format: "raw", log: folder.file("log"))
        #expect(output.contains("0x1234abcd"), "\(output)")
        let error = #expect(throws: QCOW2Error.self) {
            try ImageReader(Image.open(path, for: .reading)).view().exportVMState(to: folder.file("none"))
        }
        #expect(error?.code == .unsupported)
    }

    /// Gives a machine's monitor commands, once the machine has all of the state that it is to begin with.
    @discardableResult
    private func run(
        _ path: String, _ arguments: [String], _ commands: [String], format: String = "qcow2", log: String
    ) throws -> String {
        let script = #"""
            {
                for try in $(seq 600); do
                    grep -a '^VM status: ' "$0" | grep -qv inmigrate && break
                    echo info status; sleep 0.05
                done
                printf '%s\n' "$COMMANDS" quit
            } | "$@" | tee "$0"
            """#
        return try Tool.check(
            "env",
            [
                "COMMANDS=\(commands.joined(separator: "\n"))", "bash", "-c", "set -o pipefail; : >\"$0\"; \(script)",
                log,
                "qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg", "-machine", "pc", "-m", "8",
                "-S", "-monitor", "stdio", "-drive", "if=virtio,format=\(format),file=\(path)",
            ] + arguments)
    }
}
