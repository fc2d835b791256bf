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

    /// Every verb that writes.
    static let writingVerbs = [
        ["create", "new"], ["apply", "first"], ["apply", "first", "--save-current"], ["delete", "first"],
        ["delete", "--all"], ["rename", "first", "other"],
    ]

    private func makeImage(_ folder: TemporaryFolder) throws -> String {
        let image = folder.file("disk.qcow2")
        try Tool.check("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        try Tool.check("qemu-img", ["snapshot", "-c", "first", image])
        return image
    }

    private func qsnap(_ words: [String], _ image: String) throws -> Tool.Result {
        try Tool.run(Tool.qsnap, [words[0], image] + words.dropFirst())
    }

    @Test("Our command gives way to who has the image open", arguments: Holder.allCases)
    func giveWay(_ holder: Holder) throws {
        let folder = try TemporaryFolder()
        let image = try makeImage(folder)
        try whileHeld(by: holder, image) {
            let before = try Data(contentsOf: URL(fileURLWithPath: image))
            for words in [["list"], ["list", "--json"], ["delete", "--all", "--dry-run"]] {
                let result = try qsnap(words, image)
                #expect(result.status == (holder.writes ? 5 : 0), "\(words): \(result.errors)")
                if holder.writes { #expect(result.errors.contains("process"), "\(result.errors)") }
                TestTally.add(1, to: "\(holder)", of: "lock pairs: holder, then qsnap")
            }
            // Sharing is for reading alone.
            #expect(try Tool.run(Tool.qsnap, ["list", "--force-share", image]).status == 0)
            for words in Self.writingVerbs {
                let result = try qsnap(words, image)
                #expect(result.status == 5, "\(words): \(result.errors)")
                if holder.tool.hasPrefix("qemu") {
                    // The kernel knows fifteen bytes of a program's name.
                    #expect(result.errors.contains("\(holder.tool.prefix(15)) (process "), "\(result.errors)")
                }
                #expect(try qsnap(words + ["--force-share"], image).status == 64)
                TestTally.add(1, to: "\(holder)", of: "lock pairs: holder, then qsnap")
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: image)) == before)
        }
        try Tool.check(Tool.qsnap, ["create", image, "new"])
    }

    @Test("QEMU's programs give way to us", arguments: [Holder.ourWriter, .ourReader])
    func haveWay(_ holder: Holder) throws {
        let folder = try TemporaryFolder()
        let image = try makeImage(folder)
        try whileHeld(by: holder, image) { try expectRefusals(image, isWriting: holder.writes) }
        try Tool.check("qemu-img", ["snapshot", "-c", "theirs", image])
    }

    @Test("QEMU's programs and a second qsnap give way to a qsnap at work", arguments: writingVerbs)
    func haveWayAtWork(_ words: [String]) throws {
        let folder = try TemporaryFolder()
        let image = folder.file("disk.qcow2")
        // Large enough to be stopped in the middle.
        try Tool.check(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=4k", image, "512M"])
        try Tool.check("qemu-img", ["snapshot", "-c", "first", image])
        try Tool.check("qemu-io", ["-c", "write -P 3 0 64k", image])
        for attempt in 0..<20 {
            let copy = folder.file("copy\(attempt).qcow2")
            try Tool.check("cp", ["--sparse=always", image, copy])
            if try expectRefusals(at: copy, by: words) { return }
        }
        Issue.record("qsnap was always done before it could be stopped")
    }

    /// Stops a qsnap in the middle of its work, lets others try, and lets it go on.
    ///
    /// - Returns: Whether it was still at work when it was stopped.
    private func expectRefusals(at image: String, by words: [String]) throws -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Tool.qsnap)
        process.arguments = [words[0], image] + words.dropFirst()
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        while process.isRunning, !isHeld(image) { usleep(200) }
        kill(process.processIdentifier, SIGSTOP)
        defer {
            if process.isRunning { kill(process.processIdentifier, SIGCONT) }
            process.waitUntilExit()
        }
        guard process.isRunning, isHeld(image) else { return false }
        try expectRefusals(image, isWriting: true)
        #expect(try qsnap(["list"], image).status == 5)
        #expect(try qsnap(["list", "-U"], image).status == 0)
        let second = try qsnap(["create", "second"], image)
        #expect(second.status == 5)
        #expect(second.errors.contains("qsnap (process \(process.processIdentifier))"), "\(second.errors)")
        TestTally.add(2, to: "qsnap \(words[0])", of: "lock pairs: qsnap at work, then qsnap")
        kill(process.processIdentifier, SIGCONT)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        let check = try Tool.run("qemu-img", ["check", image])
        #expect(check.status == 0, "\(check.output)")
        return true
    }

    /// Lets every program of QEMU that writes try, and those that read.
    private func expectRefusals(_ image: String, isWriting: Bool) throws {
        let writers = [
            ("qemu-img", ["snapshot", "-c", "theirs", image]), ("qemu-img", ["snapshot", "-a", "first", image]),
            ("qemu-img", ["resize", image, "+1M"]), ("qemu-img", ["check", "-r", "all", image]),
            ("qemu-io", ["-c", "write 0 512", image]),
            ("qemu-nbd", ["-f", "qcow2", "-k", image + ".socket", image]),
            ("qemu-system-x86_64", Array(Holder.qemuSystem.arguments(image)) + ["-no-shutdown"]),
        ]
        for (tool, arguments) in writers where Tool.isInstalled(tool) {
            let result = try Tool.run(tool, arguments, input: "quit\n")
            #expect(result.status != 0 && result.errors.contains("lock"), "\(tool) \(arguments): \(result.errors)")
            TestTally.add(1, to: tool, of: "lock pairs: qsnap, then QEMU")
        }
        for arguments in [["info", image], ["snapshot", "-l", image], ["check", image]] {
            #expect(try Tool.run("qemu-img", arguments).status == (isWriting ? 1 : 0))
            TestTally.add(1, to: "qemu-img", of: "lock pairs: qsnap, then QEMU")
        }
        #expect(try Tool.run("qemu-img", ["info", "-U", image]).status == 0)
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
            try waitUntilHeld(image)
            try body()
        }
    }

    /// Waits until somebody holds a lock on the image.
    private func waitUntilHeld(_ image: String) throws {
        for _ in 0..<50_000 {
            if isHeld(image) { return }
            usleep(200)
        }
        throw Tool.Failed(description: "nobody opened \(image)")
    }

    /// Whether somebody holds a lock on the image; takes none, which could be in the other's way.
    private func isHeld(_ image: String) -> Bool {
        let descriptor = open(image, O_RDWR | O_CLOEXEC)
        defer { close(descriptor) }
        #if os(Linux)
            // Of the bytes that every program locks, the last one.
            var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 203, l_len: 1, l_pid: 0)
            return fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != Int16(F_UNLCK)
        #else
            return flock(descriptor, LOCK_EX | LOCK_NB) != 0
        #endif
    }
}
