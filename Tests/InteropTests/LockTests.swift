// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// QEMU's programs and ours keep out of each other's way, in both directions.
@Suite(.enabled(if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"), "needs qemu-utils"))
struct LockTests {
    /// A program that has the image open.
    enum Holder: String, CaseIterable {
        case qemuIO, qemuNBD, qemuSystem, readingQEMUIO, ourWriter, ourReader

        var writes: Bool { self != .readingQEMUIO && self != .ourReader }
        var tool: String {
            switch self {
            case .qemuIO, .readingQEMUIO: "qemu-io"
            case .qemuNBD: "qemu-nbd"
            case .qemuSystem: "qemu-system-x86_64"
            case .ourWriter, .ourReader: "xctest"
            }
        }

        func arguments(_ image: String) -> [String] {
            switch self {
            case .qemuIO: ["-f", "qcow2", image]
            case .readingQEMUIO: ["-r", "-f", "qcow2", image]
            case .qemuNBD: ["-f", "qcow2", "-k", image + ".socket", image]
            case .qemuSystem:
                [
                    "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "8", "-S", "-monitor", "stdio", "-drive",
                    "if=virtio,format=qcow2,file=\(image)",
                ]
            case .ourWriter, .ourReader: []
            }
        }
    }

    @Test("Our command gives way to who has the image open", arguments: Holder.allCases)
    func giveWay(_ holder: Holder) throws {
        let folder = try TemporaryFolder()
        let image = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        try whileHeld(by: holder, image) {
            let before = try Data(contentsOf: URL(fileURLWithPath: image))
            let list = try Tool.run(Tool.qsnap, ["list", image])
            #expect(list.status == (holder.writes ? 5 : 0), "\(list.errors)")
            if holder.writes { #expect(list.errors.contains("process"), "\(list.errors)") }
            #expect(try Tool.run(Tool.qsnap, ["list", "--force-share", image]).status == 0)
            let create = try Tool.run(Tool.qsnap, ["create", image, "new"])
            #expect(create.status == 5, "\(create.errors)")
            if holder.tool.hasPrefix("qemu") {
                // The kernel knows fifteen bytes of a program's name.
                #expect(create.errors.contains("\(holder.tool.prefix(15)) (process "), "\(create.errors)")
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: image)) == before)
        }
        try Tool.check(Tool.qsnap, ["create", image, "new"])
    }

    @Test("QEMU's programs give way to us", arguments: [Holder.ourWriter, .ourReader])
    func haveWay(_ holder: Holder) throws {
        let folder = try TemporaryFolder()
        let image = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        try whileHeld(by: holder, image) {
            let create = try Tool.run("qemu-img", ["snapshot", "-c", "theirs", image]).status
            let write = try Tool.run("qemu-io", ["-c", "write 0 512", image]).status
            let info = try Tool.run("qemu-img", ["info", image]).status
            let sharedInfo = try Tool.run("qemu-img", ["info", "-U", image]).status
            #expect(create != 0 && write != 0)
            #expect(info == (holder.writes ? 1 : 0))
            #expect(sharedInfo == 0)
        }
        try Tool.check("qemu-img", ["snapshot", "-c", "theirs", image])
    }

    /// Lets a program open the image, waits until it has, and ends it afterwards.
    private func whileHeld(by holder: Holder, _ image: String, _ body: () throws -> Void) throws {
        switch holder {
        case .ourWriter, .ourReader:
            let held = try Image.open(image, for: holder.writes ? .writing : .reading)
            try body()
            _ = held.close()
        default:
            guard Tool.isInstalled(holder.tool), let path = Tool.path(of: holder.tool) else { return }
            let process = Process()
            process.executableURL = URL(fileURLWithPath: path)
            process.arguments = holder.arguments(image)
            let input = Pipe()
            process.standardInput = input
            process.standardOutput = FileHandle.nullDevice
            try process.run()
            defer {
                // Not SIGTERM: a process inherits the signals that the test's thread doesn't let through.
                kill(process.processIdentifier, SIGKILL)
                process.waitUntilExit()
            }
            // It has the image open once we could not write.
            for _ in 0..<500 {
                let isHeld = (try? Image.open(image, for: .writing).close()) == nil
                if isHeld { return try body() }
                usleep(10_000)
            }
            Issue.record("\(holder.tool) never opened the image")
        }
    }
}
