// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import QCOW2
import TestTools
import Testing

/// Snapshots of running machines: their memory survives what we do, and wakes up again.
@Suite(
    .enabled(
        if: Tool.isInstalled("qemu-system-x86_64") && Tool.isInstalled("qemu-img"),
        "needs qemu-system-x86 and qemu-utils"))
struct VMStateTests {
    static let layouts = [
        Layout(version: 2, clusterSize: 512), Layout(clusterSize: 512, refcountBits: 64), Layout(clusterSize: 4096),
        Layout(version: 2), Layout(), Layout(clusterSize: 2 << 20, refcountBits: 8), Layout(features: [.extendedL2]),
    ]

    @Test("A machine's snapshots survive our create, rename and delete, and load after our apply", arguments: layouts)
    func machine(_ layout: Layout) throws {
        let unit = layout.clusterSize
        var disk = try TestDisk(layout, byteCount: max(8 << 20, 3 * unit))
        try disk.write([.pattern(0x11, at: 0, count: 3 * unit)])
        try save("vm1", memory: 0x1111_AAAA, &disk)
        try disk.write([.pattern(0x22, at: unit, count: unit)])
        try save("vm2", memory: 0x2222_BBBB, &disk)
        let before = try Image.open(disk.path, for: .reading).snapshots
        #expect(before.allSatisfy { $0.vmStateSize > 0 && $0.icount == nil })

        do {
            var image = try Image.open(disk.path, for: .writing)
            try image.createSnapshot(named: "ours")
            try image.deleteSnapshots([.name("vm2")])
            try image.renameSnapshot(.name("vm1"), to: "vm one")
        }
        disk.created("ours")
        disk.deleted("vm2")
        disk.renamed("vm1", to: "vm one")
        try disk.verify("our verbs beside VM state")
        #expect(try Image.open(disk.path, for: .reading).snapshot(.name("vm one")).vmStateSize == before[0].vmStateSize)

        try apply("vm one", &disk)
        #expect(try memory(loading: "vm one", disk) == 0x1111_AAAA)
        try disk.verify("loading after our apply")

        // Now the active tree holds VM state, too: as we left it, without QEMU in between.
        try apply("vm one", &disk)
        do {
            var image = try Image.open(disk.path, for: .writing)
            try image.createSnapshot(named: "with state in the active tree")
            try image.applySnapshot(.name("ours"))
            try image.applySnapshot(.name("with state in the active tree"))
            try image.deleteSnapshots([.name("ours")])
        }
        disk.created("with state in the active tree")
        disk.deleted("ours")
        try disk.verify("VM state in the active tree")
        try disk.write([.pattern(0x33, at: 0, count: 3 * unit)])
        #expect(try memory(loading: "vm one", disk) == 0x1111_AAAA)
        disk.applied("vm one")
        try disk.verify("a guest write and another load")
    }

    private func apply(_ name: String, _ disk: inout TestDisk) throws {
        do {
            var image = try Image.open(disk.path, for: .writing)
            try image.applySnapshot(.name(name))
        }
        disk.applied(name)
        try disk.verify("our apply of \(name)")
    }

    /// Lets a machine with a known number in its memory save itself.
    private func save(_ name: String, memory: UInt32, _ disk: inout TestDisk) throws {
        let loader = "loader,addr=0x1000,data=0x\(String(memory, radix: 16)),data-len=4"
        try runMachine(["-device", loader], disk, ["savevm \(name)"])
        disk.created(name)
        try disk.verify("savevm \(name)")
    }

    /// The number in the memory of a machine that wakes up.
    private func memory(loading name: String, _ disk: TestDisk) throws -> UInt32? {
        let output = try runMachine(["-loadvm", name], disk, ["xp /1wx 0x1000"])
        guard let line = output.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix("0000000000001000:") })
        else { return nil }
        return UInt32(line.suffix(8), radix: 16)
    }

    @discardableResult
    private func runMachine(_ arguments: [String], _ disk: TestDisk, _ commands: [String]) throws -> String {
        let script = (commands + ["quit"]).map { $0 + "\n" }.joined()
        return try Tool.check(
            "qemu-system-x86_64",
            [
                "-nodefaults", "-display", "none", "-accel", "tcg", "-machine", "pc", "-m", "8", "-S",
                "-monitor", "stdio", "-drive", "if=virtio,format=qcow2,file=\(disk.path)",
            ] + arguments, input: script)
    }
}
